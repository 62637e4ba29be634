//! What is generated from the tables: the schema, the reference pages and the file of a first run.

#![expect(clippy::unwrap_used, reason = "a test whose case cannot be set up must fail")]

use expect_test::expect_file;
use seaworthy_model::config::{
    Discovered, DiscoveredPostgres, SourceText, findings_markdown, parse, reference_markdown, schema,
    template,
};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::source::SourceSpec;
use serde_json::Value;

fn discovered() -> Discovered {
    let postgres = |database: &str| DiscoveredPostgres {
        host: "/run/postgresql".to_owned(),
        port: 5432,
        user: "seaworthy".to_owned(),
        database: database.to_owned(),
    };
    Discovered {
        owner: "platform \"team\"".to_owned(),
        zone: "Europe/Amsterdam".to_owned(),
        repository: "/var/backups/seaworthy".to_owned(),
        password_file: "/etc/seaworthy/local-password".to_owned(),
        postgres: vec![postgres("orders"), postgres("Orders"), postgres("täglich")],
        sqlite: vec!["/srv/app/orders.sqlite3".to_owned(), "/srv/a \"b\"/.db".to_owned()],
        directories: vec!["/srv/uploads".to_owned(), "/srv/archive/uploads/".to_owned(), "/".to_owned()],
    }
}

#[test]
fn the_file_of_a_first_run_is_accepted_without_a_word() {
    let text = template(&Discovered { directories: vec!["/srv/uploads".to_owned()], ..discovered() });
    let parsed = parse(&[SourceText::new("seaworthy.toml", text.as_str())])
        .unwrap_or_else(|errors| panic!("{text}\n{errors}"));
    assert!(parsed.warnings.is_empty(), "{text}\n{}", parsed.warnings);
    expect_file!["../testdata/config/template.toml"].assert_eq(&text);
}

#[test]
fn everything_that_was_found_becomes_a_service_of_its_own() {
    // A root directory holds the repository, which the parser refuses; everything else is as a machine may have it.
    let found = Discovered {
        directories: vec!["/srv/uploads".to_owned(), "/srv/archive/uploads/".to_owned()],
        ..discovered()
    };
    let parsed = parse(&[SourceText::new("seaworthy.toml", template(&found))]).unwrap();
    let names: Vec<&str> = parsed.inventory.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["orders", "orders-2", "t-glich", "orders-3", "service", "uploads", "uploads-2"]);
    let databases: Vec<&str> = parsed
        .inventory
        .services
        .iter()
        .filter_map(|service| match &service.sources[0].spec {
            SourceSpec::Postgres(spec) => Some(spec.database.as_str()),
            SourceSpec::Sqlite(_) | SourceSpec::Files(_) => None,
        })
        .collect();
    assert_eq!(databases, ["orders", "Orders", "täglich"]);
}

#[test]
fn a_first_run_that_finds_nothing_says_what_a_service_looks_like() {
    let nothing = Discovered {
        postgres: Vec::new(),
        sqlite: Vec::new(),
        directories: Vec::new(),
        zone: String::new(),
        ..discovered()
    };
    let text = template(&nothing);
    let parsed = parse(&[SourceText::new("seaworthy.toml", text.as_str())]).unwrap();
    assert!(parsed.inventory.services.is_empty());
    assert_eq!(parsed.warnings.len(), 1, "nothing is backed up, and that is said");
    // The commented example must work once its comment signs are taken away.
    let example: String = text
        .split("# Nothing was found. A service looks like this:\n")
        .nth(1)
        .unwrap()
        .lines()
        .map(|line| line.trim_start_matches('#').trim_start().to_owned() + "\n")
        .collect();
    let whole = format!("{}\n{example}", text.split("# Nothing was found").next().unwrap());
    let parsed = parse(&[SourceText::new("seaworthy.toml", whole.as_str())])
        .unwrap_or_else(|errors| panic!("{whole}\n{errors}"));
    assert!(parsed.warnings.is_empty(), "{}", parsed.warnings);
}

fn properties<'a>(node: &'a Value, path: &str, out: &mut Vec<(String, &'a Value)>) {
    match node {
        Value::Object(object) => {
            for (key, value) in object {
                if key == "properties" {
                    for (name, property) in value.as_object().unwrap() {
                        out.push((format!("{path}.{name}"), property));
                    }
                }
                properties(value, path, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, path, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_key_says_what_it_means_and_stands_in_the_reference() {
    let schema = schema();
    let mut all = Vec::new();
    properties(&schema, "", &mut all);
    assert!(all.len() > 80, "{} keys", all.len());
    let reference = reference_markdown();
    for (path, property) in all {
        let name = path.trim_start_matches('.');
        assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{path} says nothing");
        assert!(reference.contains(&format!("| `{name}` |")), "{path} is not in the reference");
        assert!(!property.to_string().contains("null"), "{path} speaks of null: {property}");
    }
}

#[test]
fn no_table_takes_keys_that_it_does_not_know() {
    let schema = schema();
    let tables = schema["$defs"].as_object().unwrap();
    for (name, table) in tables.iter().filter(|(_, table)| table.get("properties").is_some()) {
        assert_eq!(table["additionalProperties"], false, "{name}");
    }
    assert_eq!(schema["additionalProperties"], false);
    assert!(tables.len() > 12);
}

#[test]
fn the_reference_pages_are_those_that_were_read() {
    expect_file!["../testdata/config/reference.md"].assert_eq(&reference_markdown());
    let findings = findings_markdown();
    for code in FindingCode::ALL {
        assert!(findings.contains(&format!("| `{code}` | ")), "{code}");
    }
}

#[test]
fn diagnostics_are_data_for_machines() {
    let errors = parse(&[SourceText::new(
        "seaworthy.toml",
        "log = \"loud\"\n[repositories.a]\nlocation = \"/a\"\npassword = \"hunter2\"\n",
    )])
    .unwrap_err();
    let json = serde_json::to_value(&errors).unwrap();
    let first = json.as_array().unwrap().iter().find(|diagnostic| diagnostic["severity"] == "error").unwrap();
    assert_eq!(first["message"], "`loud` is no value of `log`");
    assert_eq!(first["place"]["file"], "seaworthy.toml");
    assert_eq!(first["place"]["line"], 1);
    assert_eq!(first["place"]["column"], 7);
    assert_eq!(first["place"]["span"]["start"], 6);
    assert!(!json.to_string().contains("hunter2"));
    assert!(!format!("{errors:?}").contains("hunter2"));
    assert!(!format!("{:?}", SourceText::new("a", "hunter2")).contains("hunter2"));
}
