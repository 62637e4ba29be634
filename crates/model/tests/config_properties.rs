//! Laws of the configuration: no text makes it panic, half of a file never shows a secret, what is shown is what was meant.

#![expect(clippy::unwrap_used, reason = "a test whose case cannot be set up must fail")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use seaworthy_model::check::{Question, UserCheck};
use seaworthy_model::config::{
    Diagnostics, Origins, Parsed, Settings, SourceText, includes, parse, render, show,
};
use seaworthy_model::custody::{Custody, KeyPrefix, KeySpec};
use seaworthy_model::id::{CheckName, KeyName, RepositoryName, ServiceName, SourceName, TierName};
use seaworthy_model::objective::{Objective, RecoveryObjective};
use seaworthy_model::placement::{Place, PlacementPolicy, PlacementSpec};
use seaworthy_model::remote::{Credential, RemoteSpec};
use seaworthy_model::secret::SecretRef;
use seaworthy_model::service::{
    DrillPolicy, Inventory, RepositorySpec, RetentionSpec, ScheduleSpec, Service, ServiceSource,
};
use seaworthy_model::source::{FilesSpec, PostgresMode, PostgresSpec, SourceSpec, SqliteSpec, Tls};

static CORPUS: LazyLock<Vec<(String, String)>> = LazyLock::new(corpus);

fn corpus() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for kind in ["valid", "odd", "invalid"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config").join(kind);
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                texts.push((path.display().to_string(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    texts.sort();
    texts
}

fn judged(text: &str) -> String {
    let paths = includes(text);
    assert!(paths.len() <= text.len());
    match parse(&[SourceText::new("seaworthy.toml", text)]) {
        Ok(parsed) => {
            assert!(!parsed.warnings.has_errors());
            show(&parsed, true) + &render(&parsed.warnings, true)
        }
        Err(diagnostics) => {
            assert!(diagnostics.has_errors(), "refused without an error:\n{text}");
            for diagnostic in diagnostics.iter() {
                assert!(
                    text.get(diagnostic.place.span.clone()).is_some(),
                    "{diagnostic:?} lies outside of:\n{text}"
                );
            }
            let shown = render(&diagnostics, false);
            assert!(!shown.contains("mistake in seaworthy"), "{text}\n{shown}");
            shown
        }
    }
}

#[derive(Debug, Clone)]
enum Mutation {
    Delete(usize, usize),
    Insert(usize, String),
    Repeat(usize, usize),
    Truncate(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Biased towards what TOML and this format take as signs.
    let piece = prop_oneof![
        select(vec![
            "\"",
            "'",
            "\"\"\"",
            "[",
            "]",
            "[[",
            "]]",
            "{",
            "}",
            "=",
            ".",
            ",",
            "\n",
            "\r\n",
            "#",
            "\u{0}",
            "\u{1b}[31m",
            "é",
            "𝄞"
        ])
        .prop_map(str::to_owned),
        select(vec![
            "rpo",
            "services",
            "kind = 1\n",
            "password = \"x\"\n",
            "[services.a]\n",
            "a.b.c = 1\n",
            "-1",
            "1e400",
            "0x_",
            "99999999999999999999"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    prop_oneof![
        (any::<usize>(), 0_usize..40).prop_map(|(at, length)| Mutation::Delete(at, length)),
        (any::<usize>(), piece).prop_map(|(at, text)| Mutation::Insert(at, text)),
        (any::<usize>(), 0_usize..80).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        any::<usize>().prop_map(Mutation::Truncate),
    ]
}

fn mutated(text: &str, mutations: &[Mutation]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for mutation in mutations {
        let length = characters.len();
        match mutation {
            Mutation::Delete(at, count) => {
                let at = at % (length + 1);
                characters.drain(at..(at + count).min(length));
            }
            Mutation::Insert(at, piece) => {
                let at = at % (length + 1);
                characters.splice(at..at, piece.chars());
            }
            Mutation::Repeat(at, count) => {
                let at = at % (length + 1);
                let piece: Vec<char> = characters[at..(at + count).min(length)].to_vec();
                characters.splice(at..at, piece);
            }
            Mutation::Truncate(at) => characters.truncate(at % (length + 1)),
        }
    }
    characters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn no_mutation_of_a_configuration_makes_it_panic(
        which in any::<usize>(),
        mutations in vec(mutation(), 1..6),
    ) {
        judged(&mutated(&CORPUS[which % CORPUS.len()].1, &mutations));
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        judged(&text);
    }
}

#[test]
fn no_half_of_a_file_shows_a_secret() {
    let mut tried = 0;
    for (path, text) in CORPUS.iter() {
        // After `env:` a secret cannot be told from the name of a variable while the file is cut within it.
        if !text.contains("hunter2") || path.ends_with("secret-after-env.toml") {
            continue;
        }
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let shown = judged(&text[..end]);
            tried += usize::from(text[..end].contains("hunter2"));
            assert!(!shown.contains("hunter2"), "{path} cut at {end}:\n{shown}");
        }
    }
    assert!(tried > 300, "the premise held {tried} times");
}

#[test]
fn deep_and_wide_texts_are_refused_rather_than_exhausting_the_stack() {
    for text in [
        format!("x = {}", "[".repeat(100_000)),
        format!("x = {}", "{a=".repeat(100_000)),
        format!("{} = 1", ["a"; 100_000].join(".")),
        format!("[{}]", ["a"; 100_000].join(".")),
        "[[services]]\n".repeat(20_000),
        "=".repeat(100_000),
    ] {
        assert!(parse(&[SourceText::new("seaworthy.toml", text)]).is_err());
    }
}

#[test]
fn a_long_chain_of_services_is_judged_in_time() {
    let mut text = String::from(
        "[defaults]\nowner = \"a\"\nschedule = { cron = \"0 2 * * *\", zone = \"UTC\" }\n\
         [repositories.a]\nlocation = \"/a\"\npassword = \"env:A\"\n",
    );
    for number in 0..2_000 {
        let next = (number + 1) % 2_000;
        text += &format!(
            "[services.s{number}]\ndepends_on = [\"s{next}\"]\n[services.s{number}.sources.f]\nkind = \"files\"\npaths = [\"/srv/{number}\"]\n"
        );
    }
    let refused = parse(&[SourceText::new("seaworthy.toml", text)]).unwrap_err();
    assert_eq!(refused.len(), 1, "one circle, one message");
}

fn duration() -> impl Strategy<Value = SignedDuration> {
    prop_oneof![
        (1_i64..400).prop_map(SignedDuration::from_hours),
        (1_i64..90).prop_map(SignedDuration::from_mins),
        (1_i64..100_000_000).prop_map(SignedDuration::from_millis),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z \"'\\\\#=\\[\\]{}\u{e9}\n\t]{1,20}", "[ -~]{1,20}"]
        .prop_filter("says something", |text: &String| !text.trim().is_empty())
}

fn path() -> impl Strategy<Value = String> {
    "/[a-z][a-zA-Z0-9 \"'_-]{0,8}[a-z](/[a-z]{1,5}){0,2}"
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9._-]{0,8}"
}

fn secret() -> impl Strategy<Value = SecretRef> {
    prop_oneof![
        path().prop_map(|path| format!("file:{path}")),
        Just("env:A_1".to_owned()),
        Just("cmd:pass show a/b".to_owned()),
        Just("systemd:a".to_owned()),
        Just("vault:kv/a#b".to_owned()),
    ]
    .prop_map(|text| SecretRef::try_from(text).unwrap())
}

fn question() -> impl Strategy<Value = Question> {
    prop_oneof![
        (text(), proptest::option::of(text())).prop_map(|(query, expect)| Question::Sql {
            database: None,
            query,
            expect
        }),
        (text(), 1_u64..1_000_000).prop_map(|(table, rows)| Question::MinimumRows { table, rows }),
        (text(), text(), duration()).prop_map(|(table, column, within)| Question::Freshness {
            table,
            column,
            within
        }),
        text().prop_map(|revision| Question::Migration { tool: "alembic".to_owned(), revision }),
        (path(), vec(text(), 0..3)).prop_map(|(program, rest)| {
            // One word with a space is refused as a command line.
            let argv = std::iter::once(program.replace(' ', "_")).chain(rest).collect();
            Question::Command { argv }
        }),
        (100_u16..600).prop_map(|status| Question::Http { url: "http://127.0.0.1:80/a".to_owned(), status }),
    ]
}

fn source() -> impl Strategy<Value = SourceSpec> {
    let host =
        prop_oneof![Just("/run/a b".to_owned()), Just("db.example".to_owned()), Just("::1".to_owned())];
    let postgres = (
        host,
        1_u16..,
        "[a-z ]{0,5}[a-z]",
        "[A-Za-z \"'\u{e9}]{0,9}[a-z]",
        proptest::option::of(secret()),
        vec("[a-z]{1,4}\\.[a-z\"]{1,4}", 0..2),
        duration(),
        any::<bool>(),
    );
    let postgres = postgres.prop_map(
        |(host, port, user, database, password, mut exclude_tables, lock_timeout, is_physical)| {
            exclude_tables.dedup();
            if is_physical {
                exclude_tables.clear();
            }
            SourceSpec::Postgres(PostgresSpec {
                tls: if host == "db.example" { Tls::VerifyFull } else { Tls::LocalOnly },
                host,
                port,
                user,
                mode: match (is_physical, port % 2) {
                    (false, _) => PostgresMode::Logical,
                    (true, 0) => PostgresMode::Physical,
                    (true, _) => PostgresMode::Continuous { base_every: lock_timeout },
                },
                database,
                password,
                exclude_schemas: Vec::new(),
                exclude_tables,
                lock_timeout,
                bin_dir: None,
                may_be_empty: false,
            })
        },
    );
    let sqlite = (path(), duration(), any::<bool>()).prop_map(|(path, busy_timeout, may_be_empty)| {
        SourceSpec::Sqlite(SqliteSpec { path, busy_timeout, may_be_empty })
    });
    let files = (path(), proptest::option::of("[a-z*/]{1,9}"), any::<bool>(), any::<bool>()).prop_map(
        |(path, exclude, one_file_system, may_be_empty)| {
            SourceSpec::Files(FilesSpec {
                paths: vec![path],
                exclude: exclude.into_iter().collect(),
                one_file_system,
                may_be_empty,
            })
        },
    );
    prop_oneof![postgres, sqlite, files]
}

fn sources() -> impl Strategy<Value = Vec<ServiceSource>> {
    let checks = vec((question(), duration()), 0..3);
    let kept = proptest::option::of(retention());
    let source = (name(), source(), checks, kept).prop_map(|(name, spec, checks, retention)| {
        let is_files = matches!(spec, SourceSpec::Files(_));
        let checks = checks
            .into_iter()
            .filter(|(question, _)| {
                !is_files || matches!(question, Question::Command { .. } | Question::Http { .. })
            })
            .enumerate()
            .map(|(number, (question, timeout))| UserCheck {
                name: CheckName::new(format!("check-{number}")).unwrap(),
                question,
                timeout,
            })
            .collect();
        ServiceSource { name: SourceName::new(name).unwrap(), spec, checks, retention }
    });
    vec(source, 1..3).prop_map(|mut sources| {
        let mut seen = Vec::new();
        sources.retain(|source| {
            let is_new = !seen.contains(&source.name);
            seen.push(source.name.clone());
            is_new
        });
        sources
    })
}

fn objective() -> impl Strategy<Value = Objective> {
    prop_oneof![duration().prop_map(Objective::Within), Just(Objective::NotApplicable)]
}

fn retention() -> impl Strategy<Value = RetentionSpec> {
    prop_oneof![
        Just(RetentionSpec { forever: true, ..RetentionSpec::default() }),
        (1_u32.., proptest::option::of(1_u32..100), proptest::option::of(duration())).prop_map(
            |(daily, yearly, within)| RetentionSpec {
                daily: Some(daily),
                yearly,
                within,
                ..RetentionSpec::default()
            }
        ),
    ]
}

fn placement() -> impl Strategy<Value = PlacementSpec> {
    let word = || proptest::option::of(text());
    let medium = proptest::option::of(select(vec!["disk".to_owned(), "object-store".to_owned()]));
    let number = || any::<u32>();
    let numbers = (0_u32..3, number(), number(), number(), number(), number());
    ((medium, word(), word(), word()), numbers, duration()).prop_map(
        |((medium, site, region, account), numbers, evidence_age)| {
            let (copies, media, offsite, other_account, other_region, immutable) = numbers;
            // With regions that are allowed, a repository in another one is refused.
            let regions = Vec::new();
            PlacementSpec {
                production: Place { medium, site, region, account },
                policy: PlacementPolicy {
                    copies,
                    media,
                    offsite,
                    other_account,
                    other_region,
                    immutable,
                    regions,
                    evidence_age,
                },
            }
        },
    )
}

prop_compose! {
    fn service(number: usize, tier: TierName, repository: RepositoryName)(
        name in name(),
        owner in text(),
        rpo in objective(),
        rto in objective(),
        rationale in text(),
        depends in any::<bool>(),
        sources in sources(),
        retention in proptest::option::of(retention()),
        proof_valid in duration(),
        deadline in duration(),
        deadline_percent in 100_u32..1_000,
        placement in placement(),
        ssot in any::<bool>(),
        is_scheduled in any::<bool>(),
    ) -> Service {
        let daily = ScheduleSpec { cron: "30 2 * * *".to_owned(), zone: "Europe/Amsterdam".to_owned() };
        let day = SignedDuration::from_hours(24);
        // Only promises that a daily schedule keeps.
        let keeps = match rpo {
            Objective::Within(bound) => bound >= day,
            Objective::NotApplicable => true,
        };
        Service {
            name: ServiceName::new(format!("s{number}-{name}")).unwrap(),
            owner,
            tier: tier.clone(),
            objective: RecoveryObjective { rpo, rto },
            rationale: Some(rationale),
            depends_on: if depends && number > 0 { vec![ServiceName::new("s0").unwrap()] } else { Vec::new() },
            sources,
            adopted: Vec::new(),
            repositories: vec![repository.clone()],
            schedule: (is_scheduled && keeps).then(|| daily.clone()),
            retention,
            stale_after: SignedDuration::from_hours(30),
            drill: DrillPolicy {
                schedule: (proof_valid >= day).then_some(daily),
                proof_valid,
                random_within: day,
                deadline_percent,
                deadline,
            },
            placement,
            ssot,
        }
    }
}

/// How an S3 is reached; access key and secret come together or not at all.
fn remote() -> impl Strategy<Value = RemoteSpec> {
    let word = || proptest::option::of("[A-Za-z0-9_.:-]{1,12}");
    let keys = proptest::option::of((secret(), secret(), proptest::option::of(secret())));
    let endpoint = proptest::option::of("https://[a-z]{1,8}\\.example(:[1-9][0-9]{1,3})?");
    (
        endpoint,
        proptest::option::of(any::<bool>()),
        word(),
        proptest::option::of(Just("AES256".to_owned())),
        keys,
        1..100_i64,
    )
        .prop_map(|(endpoint, path_style, storage_class, encryption, keys, seconds)| RemoteSpec {
            endpoint,
            path_style,
            storage_class,
            encryption,
            storage_account: None,
            credentials: keys
                .into_iter()
                .flat_map(|(id, key, token)| {
                    [(Credential::AccessKey, id), (Credential::SecretKey, key)]
                        .into_iter()
                        .chain(token.map(|token| (Credential::SessionToken, token)))
                })
                .collect(),
            timeout: SignedDuration::from_secs(seconds),
        })
}

/// An online key, and one in escrow; either may be missing.
fn register() -> impl Strategy<Value = BTreeMap<KeyName, KeySpec>> {
    let online = (text(), proptest::option::of(text()), any::<bool>());
    let escrow = (text(), text(), duration(), proptest::option::of("[0-9a-f]{8,64}"));
    (proptest::option::of(online), proptest::option::of(escrow)).prop_map(|(online, escrow)| {
        let mut keys = BTreeMap::new();
        if let Some((holder, place, has_id)) = online {
            let name = KeyName::new("a.online").unwrap();
            keys.insert(
                name.clone(),
                KeySpec {
                    name,
                    custody: Custody::Online,
                    holder,
                    place,
                    password: None,
                    // Of another key than the one in escrow, whatever that is.
                    id: has_id.then(|| KeyPrefix::new(&"0".repeat(64)).unwrap()),
                    check_every: SignedDuration::from_hours(180 * 24),
                },
            );
        }
        if let Some((holder, place, check_every, id)) = escrow {
            let name = KeyName::new("b").unwrap();
            let id = id.filter(|id| !"0".repeat(64).starts_with(id.as_str()));
            let id = id.map(|id| KeyPrefix::new(&id).unwrap());
            let custody = if id.is_some() { Custody::Escrow } else { Custody::Recovery };
            let password = Some(SecretRef::Env("B_1".to_owned()));
            keys.insert(
                name.clone(),
                KeySpec { name, custody, holder, place: Some(place), password, id, check_every },
            );
        }
        keys
    })
}

fn inventory() -> impl Strategy<Value = Inventory> {
    let repository = (
        name(),
        prop_oneof!["/repository/[a-z]{1,5}", "s3://[a-z]{1,5}/[a-z]{1,5}"],
        secret(),
        proptest::option::of(text()),
        text(),
        remote(),
        proptest::option::of(retention()),
        register(),
    )
        .prop_map(|(name, location, password, account, site, remote, retention, keys)| RepositorySpec {
            name: RepositoryName::new(name).unwrap(),
            medium: "nas".to_owned(),
            remote: location.contains("://").then_some(remote),
            location,
            password,
            site,
            region: None,
            account,
            retention,
            opened_by: None,
            keys,
        });
    let tier = (name(), objective(), objective());
    (repository, tier).prop_flat_map(|(repository, (tier, rpo, rto))| {
        let tier = TierName::new(format!("t{tier}")).unwrap();
        let services: Vec<_> =
            (0..3).map(|number| service(number, tier.clone(), repository.name.clone())).collect();
        services.prop_map(move |mut services| {
            services[0].name = ServiceName::new("s0").unwrap();
            let within = |hours| Objective::Within(SignedDuration::from_hours(hours));
            let built_in =
                [("critical", 1, 1), ("standard", 24, 4), ("low", 72, 24)].map(|(name, rpo, rto)| {
                    (TierName::new(name).unwrap(), RecoveryObjective { rpo: within(rpo), rto: within(rto) })
                });
            let mut tiers = BTreeMap::from(built_in);
            tiers.insert(tier.clone(), RecoveryObjective { rpo, rto });
            Inventory {
                services,
                repositories: BTreeMap::from([(repository.name.clone(), repository.clone())]),
                tiers,
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_shown_is_what_was_meant(inventory in inventory()) {
        let parsed = Parsed {
            inventory,
            settings: Settings::default(),
            origins: Origins::new(),
            warnings: Diagnostics::default(),
        };
        let shown = show(&parsed, false);
        let again = parse(&[SourceText::new("shown.toml", shown.as_str())]);
        let again = again.map_err(|errors| TestCaseError::fail(format!("{shown}\n{errors}")))?;
        prop_assert_eq!(again.inventory, parsed.inventory, "{}", shown);
    }
}
