//! Copies that attack whoever restores them: code that runs during a restore, on checking, on being looked at.
//!
//! Each tries to leave a mark outside of the sandbox: a file in a directory that everybody may write to, a connection to a
//! port of this host, a file in the product's own state directory. A mark is a miss, whatever the verdict.

use std::fs;

use crate::Outcome;
use crate::case::{Ask, Case, Kind, Layer, Step};
use crate::forge::forge_files;
use crate::postgres::dumped;
use crate::stage::Stage;
use crate::{secrets, sqlite};

/// Every case for a kind.
pub(crate) fn cases(kind: Kind) -> Vec<Case> {
    match kind {
        Kind::Postgres => postgres(),
        Kind::Sqlite => databases(),
        Kind::Files | Kind::Cluster | Kind::Log => Vec::new(),
    }
}

/// A function `strike()` that attacks, but not on the server that the copy is made from, where the same code runs too.
///
/// Whatever an attack comes to, it is not an error: the restore goes on.
fn strike(stage: &Stage, attack: &str) -> Outcome<String> {
    Ok(format!(
        "CREATE FUNCTION strike() RETURNS boolean LANGUAGE plpgsql AS $strike$
         BEGIN
           IF starts_with(current_setting('data_directory'), '{}') THEN RETURN true; END IF;
           BEGIN
             {};
           EXCEPTION WHEN OTHERS THEN RETURN true;
           END;
           RETURN true;
         END $strike$;",
        stage.server()?.host(),
        attack
            .replace("OUTSIDE", &stage.outside().display().to_string())
            .replace("STATE", &stage.product.state().display().to_string())
            .replace("PORT", &stage.port()?.to_string())
    ))
}

/// Something that calls `strike()` when it is restored.
#[derive(Clone, Copy)]
enum Trap {
    Check,
    Generated,
    Index,
    MaterializedView,
    Domain,
}

impl Trap {
    fn sql(self) -> &'static str {
        match self {
            Self::Check => "ALTER TABLE plain ADD CONSTRAINT trap CHECK (strike())",
            Self::Generated => {
                "ALTER FUNCTION strike() IMMUTABLE; ALTER TABLE plain ADD COLUMN trap boolean GENERATED ALWAYS AS (strike()) STORED"
            }
            Self::Index => "ALTER FUNCTION strike() IMMUTABLE; CREATE INDEX trap ON plain ((strike()))",
            Self::MaterializedView => "CREATE MATERIALIZED VIEW trap AS SELECT strike()",
            Self::Domain => {
                "CREATE DOMAIN trap AS int CHECK (strike()); CREATE TABLE trapped (a trap); INSERT INTO trapped VALUES (1)"
            }
        }
    }
}

fn attack(name: &str, what: &str, attack: &'static str, trap: Trap) -> Case {
    attack_as(name, what, attack, trap, &["CT-03", "CT-04", "CT-05", "CT-17"])
}

fn attack_as(name: &str, what: &str, attack: &'static str, trap: Trap, expected: &[&'static str]) -> Case {
    Case::new(name, Layer::Hostile, what, expected, move |stage, _| {
        let sql = format!("{} {}", strike(stage, attack)?, trap.sql());
        stage.server()?.sql("shop", &sql)?;
        forge_files(&stage.product, &stage.original, &dumped(stage, &[])?)?;
        Ok(Ask::drill())
    })
}

/// The same that takes for ever, or all there is: the run has a limit.
fn greedy(name: &str, what: &str, sql: &'static str, expected: &[&'static str]) -> Case {
    Case::new(name, Layer::Hostile, what, expected, move |stage, _| {
        let sql = format!("{} {}", strike(stage, sql)?, Trap::MaterializedView.sql());
        stage.server()?.sql("shop", &sql)?;
        forge_files(&stage.product, &stage.original, &dumped(stage, &[])?)?;
        let mut ask = Ask::steps(vec![Step::of(&["drill", "it", "--timeout", "12s"])]);
        ask.has_copy = false;
        Ok(ask)
    })
}

const PROGRAM: &str = "COPY (SELECT 'struck') TO PROGRAM 'cat > OUTSIDE/program'";
const CONNECT: &str = "COPY (SELECT 1) TO PROGRAM 'bash -c \"echo struck > /dev/tcp/127.0.0.1/PORT\"'";

fn postgres() -> Vec<Case> {
    vec![
        attack("program-in-a-check", "a check runs a program", PROGRAM, Trap::Check),
        attack(
            "program-in-a-generated-column",
            "a generated column runs a program",
            PROGRAM,
            Trap::Generated,
        ),
        attack("program-in-an-index", "the expression of an index runs a program", PROGRAM, Trap::Index),
        attack("program-in-a-view", "a materialized view runs a program", PROGRAM, Trap::MaterializedView),
        attack("program-in-a-domain", "the check of a domain runs a program", PROGRAM, Trap::Domain),
        attack(
            "server-writes-a-file",
            "the server writes a file",
            "COPY (SELECT 'struck') TO 'OUTSIDE/copied'",
            Trap::Check,
        ),
        attack(
            "large-object-exported",
            "a large object is written to a file",
            "PERFORM lo_export(lo_from_bytea(0, 'struck'), 'OUTSIDE/exported')",
            Trap::Check,
        ),
        attack(
            "state-overwritten",
            "the product's signing key is overwritten",
            "COPY (SELECT 'struck') TO PROGRAM 'cat > STATE/signing.key'",
            Trap::Check,
        ),
        attack(
            "state-read",
            "the product's signing key is read and kept",
            "CREATE TABLE stolen AS SELECT pg_read_file('STATE/signing.key')",
            Trap::Check,
        ),
        attack("connects-out", "a program connects to this host", CONNECT, Trap::Check),
        attack_as(
            "kills",
            "a program kills whatever it can",
            "COPY (SELECT 1) TO PROGRAM 'kill -9 -1'",
            Trap::MaterializedView,
            // The engine is gone: who killed it is not known.
            &["ENV-OTHER"],
        ),
        Case::new(
            "program-in-an-event-trigger",
            Layer::Hostile,
            "an event trigger runs a program at every definition",
            &["CT-03", "CT-17"],
            |stage, _| {
                let sql = format!(
                "{} CREATE FUNCTION strikes() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM strike(); END';
                 CREATE EVENT TRIGGER trap ON ddl_command_end EXECUTE FUNCTION strikes();",
                strike(stage, PROGRAM)?
            );
                stage.server()?.sql("shop", &sql)?;
                forge_files(&stage.product, &stage.original, &dumped(stage, &[])?)?;
                Ok(Ask::drill())
            },
        ),
        Case::new(
            "scripts-in-the-globals",
            Layer::Hostile,
            "the script with the roles holds commands of a shell",
            &["RP-07", "CT-11", "RP-04"],
            |stage, _| {
                let mut files = stage.whole.clone();
                let path = files
                    .keys()
                    .find(|path| path.ends_with(b"globals.sql"))
                    .cloned()
                    .ok_or("no globals.sql")?;
                let mut script = files[&path].clone();
                script.splice(0..0, format!("\\! touch {}/meta\n", stage.outside().display()).into_bytes());
                files.insert(path, script);
                forge_files(&stage.product, &stage.original, &files)?;
                Ok(Ask::drill())
            },
        ),
        greedy("sleeps", "a view sleeps for an hour", "PERFORM pg_sleep(3600)", &["EV-10", "ENV-TIMEOUT"]),
        greedy(
            "spins",
            "a view never ends",
            "PERFORM count(*) FROM generate_series(1, 100000000000)",
            &["EV-10", "ENV-TIMEOUT"],
        ),
        greedy(
            "devours-memory",
            "a view asks for a gigabyte of text, again and again",
            "PERFORM length(string_agg(repeat('x', 100000000), '')) FROM generate_series(1, 9)",
            &["EV-10", "ENV-TIMEOUT", "CT-03", "CT-04", "CT-17", "ENV-OTHER"],
        ),
    ]
}

/// A database whose schema attacks, in place of the copy's.
fn schema(name: &str, what: &str, sql: &'static str, expected: &[&'static str]) -> Case {
    Case::new(name, Layer::Hostile, what, expected, move |stage, _| {
        let sql = sql.replace("OUTSIDE", &stage.outside().display().to_string());
        let bytes = sqlite::altered(stage, &sql)?;
        sqlite::forged(stage, bytes)
    })
}

fn databases() -> Vec<Case> {
    const ANY: &[&str] = &["CT-01", "CT-02", "CT-03", "CT-04", "CT-13", "CT-15", "CT-17", "FS-08"];
    vec![
        schema(
            "view-loads-a-library",
            "a view loads a library",
            "CREATE VIEW trap AS SELECT load_extension('OUTSIDE/x.so')",
            ANY,
        ),
        schema(
            "trigger-loads-a-library",
            "a trigger loads a library",
            "CREATE TRIGGER trap AFTER INSERT ON audit BEGIN SELECT load_extension('OUTSIDE/x.so'); END",
            ANY,
        ),
        schema(
            "view-writes-a-file",
            "a view writes a file",
            "CREATE VIEW trap AS SELECT writefile('OUTSIDE/written', 'struck')",
            ANY,
        ),
        schema(
            "endless-view",
            "a view never ends",
            "CREATE VIEW trap AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
            ANY,
        ),
        schema(
            "view-devours-memory",
            "a view asks for a gigabyte of text",
            "CREATE VIEW trap AS SELECT hex(zeroblob(1000000000))",
            ANY,
        ),
        schema(
            "attached",
            "a table is elsewhere",
            "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES ('view', 'trap', 'trap', 0, 'CREATE VIEW trap AS SELECT * FROM other.secrets'); PRAGMA writable_schema = OFF",
            ANY,
        ),
        schema(
            "trigger-in-a-loop",
            "triggers that call each other",
            "PRAGMA recursive_triggers = ON; CREATE TABLE a1 (x); CREATE TRIGGER t1 AFTER INSERT ON a1 BEGIN INSERT INTO a1 VALUES (new.x + 1); END",
            ANY,
        ),
        Case::new(
            "root-page-beyond-the-end",
            Layer::Hostile,
            "a table whose root lies beyond the file",
            &["CT-13", "CT-15"],
            |stage, _| {
                let sql = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2147483646 WHERE name = 'audit'; PRAGMA writable_schema = OFF";
                let bytes = sqlite::altered(stage, sql)?;
                sqlite::forged(stage, bytes)
            },
        ),
        Case::new(
            "page-count-of-a-giant",
            Layer::Hostile,
            "a header that promises four billion pages",
            &["CT-13", "CT-15", "FS-02", "CT-01", "CT-02"],
            |stage, _| {
                let mut bytes = stage.whole[&sqlite::database(&stage.whole)?].clone();
                bytes[28..32].copy_from_slice(&u32::MAX.to_be_bytes());
                sqlite::forged(stage, bytes)
            },
        ),
    ]
}

/// Marks that a trial has left outside of the sandbox, and secrets in what it keeps; takes the marks away.
pub(crate) fn marks(stage: &Stage) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(stage.outside())? {
        let path = entry?.path();
        found.push(format!("{} was made", path.display()));
        fs::remove_file(&path)?;
    }
    match stage.listener.accept() {
        Ok((_, from)) => found.push(format!("{from} has connected")),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error.into()),
    }
    let key = stage.product.state().join("signing.key");
    if fs::read(&key)? != fs::read(stage.pristine().join("state/signing.key"))? {
        found.push(format!("{} was changed", key.display()));
    }
    found.extend(secrets::left_in(&stage.product.state())?);
    found.extend(secrets::left_in(&stage.product.scratch())?);
    Ok(found)
}
