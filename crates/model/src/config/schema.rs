//! The JSON schema for editors, and the reference pages, both generated from the tables' own doc comments.

use std::fmt::Write as _;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::shape::{FileTable, built_in};
use super::template::SCHEMA_FILE;
use crate::finding::{FindingCode, Severity};

static SCHEMA: LazyLock<Value> = LazyLock::new(generate);

/// The JSON schema of `seaworthy.toml`, for editors; what the parser itself checks the shape against.
#[must_use]
pub fn schema() -> Value {
    SCHEMA.clone()
}

pub(super) fn shared() -> &'static Value {
    &SCHEMA
}

fn generate() -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<FileTable>();
    let mut value = Value::from(schema);
    tidy(&mut value);
    if let Some(object) = value.as_object_mut() {
        object.insert("$id".to_owned(), json!(SCHEMA_FILE));
        object.insert("title".to_owned(), json!("seaworthy.toml"));
    }
    value
}

/// TOML has no null: an omitted key is an absent one, so the schema does not speak of null either.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
                branches.retain(|branch| branch != &json!({ "type": "null" }));
                if let [Value::Object(only)] = branches.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    for (key, value) in only {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            // Optional fields of a struct that has a default: `null` and `{}` say nothing to a reader.
            if object
                .get("default")
                .is_some_and(|default| default.is_null() || *default == json!({}) || *default == json!([]))
            {
                object.remove("default");
            }
            // A description of several lines is wrapped source, not several paragraphs.
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Follows `$ref` to the table that it names.
pub(super) fn resolve(node: &Value) -> &Value {
    let mut node = node;
    // 8: the schema nests no deeper; a cycle of references would otherwise never end.
    for _ in 0..8 {
        let Some(target) = node.get("$ref").and_then(Value::as_str) else { return node };
        let Some(found) = target.strip_prefix('#').and_then(|pointer| shared_pointer(pointer)) else {
            return node;
        };
        node = found;
    }
    node
}

fn shared_pointer(pointer: &str) -> Option<&'static Value> {
    shared().pointer(pointer)
}

/// The page `docs/reference/configuration.md`: every key, its type, its default, its meaning.
#[must_use]
pub fn reference_markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n<!-- Generated from the configuration's own types; do not edit. -->\n\n\
         `seaworthy.toml` is TOML. An unknown key is an error, every problem is reported at once, and a secret is given by\n\
         reference only. Check a file with `seaworthy config check`; `seaworthy config show --origin` prints every value\n\
         with the place it comes from.\n\n\
         - **Durations** are counts: `90d`, `24h`, `1h 30m`; a day is 24 hours. Calendar spans (`3 months`) are refused.\n\
         - **Objectives** are durations or `not-applicable`.\n\
         - **Paths** are absolute, without `..`. `~` and variables are not expanded: a service runs with another home.\n\
         - **Names** have 1 to 63 of `a-z 0-9 - _ .` and begin with a letter or digit.\n\
         - **Secrets** are `file:/path`, `env:NAME`, `cmd:program arg` (no shell), `systemd:name`, `vault:path#field`.\n\
         - **Nothing is a template.** There are no variables; `[defaults]` and `include` are all there is.\n\n\
         The built-in tiers:\n\n| tier | rpo | rto |\n|---|---|---|\n",
    );
    for (name, rpo, rto) in built_in::TIERS {
        push(&mut out, &format!("| `{name}` | `{rpo}` | `{rto}` |\n"));
    }
    section(&mut out, "Top level", "", shared());
    out.push_str(
        "\n## Environment and flags\n\nA flag wins over the environment, the environment over the file, the file over the \
         default.\n\n| key | environment | flag |\n|---|---|---|\n",
    );
    for setting in super::settings::SETTINGS {
        push(&mut out, &format!("| `{}` | `{}` | `--{}` |\n", setting.key, setting.env(), setting.flag()));
    }
    out
}

fn push(out: &mut String, text: &str) {
    out.write_str(text).expect("writing to a String cannot fail");
}

fn section(out: &mut String, title: &str, path: &str, node: &Value) {
    push(out, &format!("\n## {title}\n\n"));
    if let (false, Some(description)) = (path.is_empty(), text_of(node, "description")) {
        push(out, &format!("{description}\n\n"));
    }
    let Some(properties) = node.get("properties").and_then(Value::as_object) else { return };
    out.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    let required: Vec<&str> = node
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (key, property) in properties {
        let default = match property.get("default") {
            Some(Value::String(text)) => format!("`{text}`"),
            Some(other) => format!("`{other}`"),
            None if required.contains(&key.as_str()) => "**needed**".to_owned(),
            None => String::new(),
        };
        let meaning = text_of(property, "description").unwrap_or_default().replace('|', "\\|");
        push(out, &format!("| `{key}` | {} | {default} | {meaning} |\n", type_word(property)));
    }
    for (key, property) in properties {
        subsections(out, path, key, property);
    }
}

fn subsections(out: &mut String, path: &str, key: &str, property: &Value) {
    let inner = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let node = resolve(property);
    if let Some(entry) = node.get("additionalProperties").filter(|entry| entry.is_object()) {
        // `orders`, `local`: any name; the reference writes NAME.
        let placeholder = format!("{inner}.NAME");
        branches_or_section(out, &placeholder, &format!("[{placeholder}]"), resolve(entry));
    } else if let Some(items) = node.get("items").map(resolve).filter(|items| items.get("anyOf").is_some()) {
        // Checks are the same for every kind of source; they are written once.
        if !out.contains("[[…checks]]") {
            branches_or_section(out, &inner, "[[…checks]]", items);
        }
    } else if node.get("properties").is_some() {
        if path.is_empty() {
            section(out, &format!("[{inner}]"), &inner, node);
        } else if !out.contains(&format!("## {key} = {{ … }}\n")) {
            // `schedule` and its like are the same wherever they stand; they are written once.
            section(out, &format!("{key} = {{ … }}"), &inner, node);
        }
    }
}

fn branches_or_section(out: &mut String, path: &str, title: &str, node: &Value) {
    let Some(branches) = node.get("anyOf").and_then(Value::as_array) else {
        section(out, title, path, node);
        return;
    };
    for branch in branches.iter().map(resolve) {
        let kind = branch.pointer("/properties/kind/const").and_then(Value::as_str).unwrap_or_default();
        section(out, &format!("{title}, kind = \"{kind}\""), path, branch);
    }
}

fn text_of<'a>(node: &'a Value, key: &str) -> Option<&'a str> {
    node.get(key).and_then(Value::as_str)
}

/// The word for a value's type, as messages and the reference use it.
pub(super) fn type_word(property: &Value) -> String {
    if let Some(choices) = property.get("enum").and_then(Value::as_array) {
        return choices
            .iter()
            .filter_map(Value::as_str)
            .map(|choice| format!("`{choice}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(only) = text_of(property, "const") {
        return format!("`{only}`");
    }
    if let Some(kind) = text_of(property, "x-kind") {
        return if kind == "objective" { "duration or `not-applicable`".to_owned() } else { kind.to_owned() };
    }
    let node = resolve(property);
    match text_of(node, "type") {
        Some("string") => "text".to_owned(),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("array") => match node.get("items").map(resolve) {
            Some(items) if items.get("x-kind").is_some() || items.get("type") == Some(&json!("string")) => {
                format!("list of {}s", type_word(items))
            }
            _ => "list of tables".to_owned(),
        },
        Some("object") | None => "table".to_owned(),
        Some(other) => other.to_owned(),
    }
}

/// The page `docs/reference/findings.md`: every code, how urgent it is, what it means, what to do.
#[must_use]
pub fn findings_markdown() -> String {
    let mut out = String::from(
        "# Findings\n\n<!-- Generated from the findings' own table; do not edit. -->\n\nCodes are stable and never reused. \
         `ENV-`, `IO-` and `AUTH-` findings say that the environment kept us from\ndeciding; they never blame a copy, and \
         they are never a pass.\n\n| code | severity | meaning | what to do |\n|---|---|---|---|\n",
    );
    for code in FindingCode::ALL {
        let severity = match code.severity() {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        };
        push(&mut out, &format!("| `{code}` | {severity} | {} | {} |\n", code.meaning(), code.remedy()));
    }
    out
}

/// Keys of a table in the schema.
pub(super) fn known_keys(properties: &Map<String, Value>) -> impl Iterator<Item = &str> {
    properties.keys().map(String::as_str)
}
