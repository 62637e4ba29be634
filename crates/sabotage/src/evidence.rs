//! Damage to the papers: witness, receipts, catalogue, keys, clock.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;
use seaworthy_model::signature::SigningKey;
use seaworthy_testkit::estate::Dice;
use serde_json::Value;

use crate::Outcome;
use crate::case::{Ask, Case, Kind, Layer, Step};
use crate::files;
use crate::forge::{Papers, copy_of, forge, put_all, tell, tell_at};
use crate::repository::change_source;
use crate::stage::Stage;

/// A forged copy of the original's content with other papers.
fn papers(stage: &Stage, papers: Papers<'_>) -> Outcome<Ask> {
    if stage.kind == Kind::Files {
        return files::forged(stage, papers);
    }
    forge(&stage.product, &stage.original, papers, |session| put_all(session, &stage.whole))?;
    Ok(Ask::drill())
}

/// Every case for a kind.
pub(crate) fn cases(kind: Kind) -> Vec<Case> {
    let mut cases = witnesses();
    cases.extend(keys());
    cases.extend(catalogue());
    if kind == Kind::Sqlite {
        // What the ledger is about does not depend on the kind.
        cases.extend(ledger());
        cases.extend(clock());
    }
    cases
}

/// Changes the first number in a witness that counts something.
fn other_count(witness: Vec<u8>) -> Option<Vec<u8>> {
    let text = String::from_utf8(witness).ok()?;
    let at =
        text.find("\"rows\":").or_else(|| text.find("\"bytes\":")).or_else(|| text.find("\"files\":"))?;
    let digit = at + text[at..].find(|character: char| character.is_ascii_digit())?;
    let mut bytes = text.into_bytes();
    bytes[digit] = if bytes[digit] == b'9' { b'1' } else { bytes[digit] + 1 };
    Some(bytes)
}

fn witnesses() -> Vec<Case> {
    let layer = Layer::Witness;
    vec![
        Case::new("witness-missing", layer, "the copy holds no witness", &["CT-18", "RP-02"], |stage, _| {
            papers(stage, Papers { witness: Some(&|_| None), ..Papers::default() })
        }),
        Case::new("witness-edited", layer, "a number in the witness is another", &["RP-05"], |stage, _| {
            papers(stage, Papers { witness: Some(&other_count), ..Papers::default() })
        }),
        Case::new("witness-cut", layer, "the witness is cut off", &["RP-05"], |stage, _| {
            let half = |witness: Vec<u8>| Some(witness[..witness.len() / 2].to_vec());
            papers(stage, Papers { witness: Some(&half), ..Papers::default() })
        }),
        Case::new(
            "witness-empty",
            layer,
            "the witness says nothing, and its receipt agrees",
            &["CT-18", "RP-05"],
            |stage, _| {
                let nothing = |_| Some(b"{}".to_vec());
                papers(stage, Papers { witness: Some(&nothing), receipt_follows: true, ..Papers::default() })
            },
        ),
        Case::new(
            "receipt-by-a-stranger",
            layer,
            "the receipt of the copy is signed by another key",
            &["EV-07", "RP-05"],
            |stage, dice| {
                let mut random = [0; 32];
                dice.fill(&mut random);
                papers(stage, Papers { key: Some(SigningKey::from_random(&random)), ..Papers::default() })
            },
        ),
    ]
}

fn keys() -> Vec<Case> {
    let password = |content: &'static str, mode: u32| {
        move |stage: &Stage| -> Outcome<Ask> {
            let path = stage.product.path().join("password");
            fs::write(&path, content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            Ok(Ask::drill())
        }
    };
    let wrong = password("wrong horse", 0o600);
    let empty = password("", 0o600);
    let open = password("correct horse", 0o644);
    vec![
        Case::new("wrong-password", Layer::Key, "the password is another", &["KY-01"], move |stage, _| {
            wrong(stage)
        }),
        Case::new(
            "empty-password",
            Layer::Key,
            "the file of the password is empty",
            &["KY-02"],
            move |stage, _| empty(stage),
        ),
        Case::new(
            "open-password",
            Layer::Key,
            "everybody can read the password",
            &["KY-05"],
            move |stage, _| open(stage),
        ),
        Case::new(
            "password-gone",
            Layer::Key,
            "the file of the password is missing",
            &["KY-02"],
            |stage, _| {
                fs::remove_file(stage.product.path().join("password"))?;
                Ok(Ask::drill())
            },
        ),
    ]
}

/// The catalogue, with what protects it from accidents taken away.
fn unlocked(stage: &Stage) -> Outcome<Connection> {
    let connection = Connection::open(stage.product.state().join("catalogue.sqlite"))?;
    connection.execute_batch(
        "DROP TRIGGER IF EXISTS receipt_is_never_changed; DROP TRIGGER IF EXISTS receipt_is_never_removed; PRAGMA foreign_keys = OFF;",
    )?;
    Ok(connection)
}

/// Puts it back.
fn locked(connection: Connection) -> Outcome {
    connection.execute_batch(
        "CREATE TRIGGER receipt_is_never_changed BEFORE UPDATE ON receipt
             BEGIN SELECT RAISE (ABORT, 'a receipt is never changed'); END;
         CREATE TRIGGER receipt_is_never_removed BEFORE DELETE ON receipt
             BEGIN SELECT RAISE (ABORT, 'a receipt is never removed'); END;
         PRAGMA wal_checkpoint(TRUNCATE);",
    )?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// What is derived from receipts was edited: the drill must not believe it.
fn catalogue() -> Vec<Case> {
    vec![
        Case::new(
            "point-names-a-forged-copy",
            Layer::Ledger,
            "the catalogue's point was edited to name a copy without papers",
            &["EV-07", "RP-05"],
            |stage, dice| {
                change_source(stage, dice)?;
                // A copy that somebody else made of something else, and its witness.
                let altered = stage.product.backup("it")?;
                let forged = copy_of(&altered)?.hex();
                let witness = altered["witness"].as_str().ok_or("no witness")?.to_owned();
                let was = copy_of(&stage.original)?.hex();
                let had = stage.original["witness"].as_str().ok_or("no witness")?.to_owned();
                let connection = unlocked(stage)?;
                connection.execute("DELETE FROM recovery_point WHERE copy = ?1", [&forged])?;
                let changed = connection.execute(
                    "UPDATE recovery_point SET copy = ?1, fact = replace(replace(fact, ?2, ?1), ?3, ?4) WHERE copy = ?2",
                    [&forged, &was, &had, &witness],
                )?;
                if changed != 1 {
                    return Err(format!("{changed} points were edited").into());
                }
                locked(connection)?;
                Ok(Ask::drill())
            },
        ),
        Case::new(
            "point-of-another-service",
            Layer::Ledger,
            "the catalogue's point of a test system was given to this service",
            &["EV-07"],
            |stage, _| {
                // Everything that is drilled as `other` is asked for as `it`.
                let connection = unlocked(stage)?;
                connection.execute("UPDATE recovery_point SET service = 'other'", [])?;
                locked(connection)?;
                stage.rename("other")?;
                Ok(Ask::steps(vec![Step::of(&["drill", "other"])]))
            },
        ),
        Case::new(
            "point-is-younger",
            Layer::Ledger,
            "the catalogue's point was edited to be younger than its backup",
            &["EV-07", "TM-02", "RP-06"],
            |stage, _| {
                let connection = unlocked(stage)?;
                let fact: String =
                    connection.query_row("SELECT fact FROM recovery_point", [], |row| row.get(0))?;
                let mut value: Value = serde_json::from_str(&fact)?;
                let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3_600);
                value["point"] = Value::String(now.to_string());
                connection
                    .execute("UPDATE recovery_point SET fact = ?1", [serde_json::to_string(&value)?])?;
                locked(connection)?;
                Ok(Ask::drill())
            },
        ),
    ]
}

fn verify() -> Ask {
    Ask::steps(vec![Step::of(&["verify"])])
}

/// A ledger with a few acts in it.
fn grown(stage: &Stage) -> Outcome {
    stage.product.backup("it")?;
    stage.product.drill("it", 0)?;
    Ok(())
}

fn edited(
    name: &str,
    what: &str,
    expected: &[&'static str],
    edit: impl Fn(&Connection, &mut Dice) -> Outcome + Send + Sync + 'static,
) -> Case {
    Case::new(name, Layer::Ledger, what, expected, move |stage, dice| {
        grown(stage)?;
        let connection = unlocked(stage)?;
        edit(&connection, dice)?;
        locked(connection)?;
        Ok(verify())
    })
}

fn sequences(connection: &Connection) -> Outcome<Vec<i64>> {
    let mut statement = connection.prepare("SELECT sequence FROM receipt ORDER BY sequence")?;
    let all = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    Ok(all)
}

fn ledger() -> Vec<Case> {
    vec![
        edited("receipt-edited", "a verdict in a receipt was edited", &["EV-07"], |connection, dice| {
            let all = sequences(connection)?;
            let chosen = all[dice.below(all.len() as u64) as usize];
            let line: String =
                connection
                    .query_row("SELECT line FROM receipt WHERE sequence = ?1", [chosen], |row| row.get(0))?;
            // One letter of the payload, which is spelled in base 64.
            let at = line.find("\"payload\":\"").ok_or("no payload")? + 11 + 100;
            let mut bytes = line.into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            connection.execute(
                "UPDATE receipt SET line = ?1 WHERE sequence = ?2",
                rusqlite::params![String::from_utf8(bytes)?, chosen],
            )?;
            Ok(())
        }),
        edited("receipt-hidden", "a receipt in the middle was removed", &["EV-06"], |connection, dice| {
            let all = sequences(connection)?;
            let chosen = all[1 + dice.below(all.len() as u64 - 2) as usize];
            connection.execute("DELETE FROM receipt WHERE sequence = ?1", [chosen])?;
            Ok(())
        }),
        edited(
            "receipts-exchanged",
            "two receipts have each other's place",
            &["EV-06", "EV-07"],
            |connection, _| {
                let all = sequences(connection)?;
                let (one, other) = (all[0], all[1]);
                connection.execute_batch(&format!(
                    "UPDATE receipt SET sequence = 100000 WHERE sequence = {one};
                 UPDATE receipt SET sequence = {one} WHERE sequence = {other};
                 UPDATE receipt SET sequence = {other} WHERE sequence = 100000;"
                ))?;
                Ok(())
            },
        ),
        edited("receipt-twice", "the last receipt is there twice", &["EV-06", "EV-07"], |connection, _| {
            connection.execute_batch(
                "INSERT INTO receipt (sequence, digest, act, service, run, ends, line)
                 SELECT sequence + 1, digest || 'x', act, service, run, NULL, line FROM receipt ORDER BY sequence DESC LIMIT 1",
            )?;
            Ok(())
        }),
        Case::new("ledger-cut", Layer::Ledger, "the newest receipts were removed", &["EV-06"], |stage, _| {
            grown(stage)?;
            let head = head(stage)?;
            let connection = unlocked(stage)?;
            let all = sequences(&connection)?;
            let last = all[all.len() - 2];
            connection.execute("DELETE FROM receipt WHERE sequence >= ?1", [last])?;
            locked(connection)?;
            Ok(Ask::steps(vec![Step::of(&["verify", "--head", &head])]))
        }),
        Case::new(
            "ledger-by-a-stranger",
            Layer::Ledger,
            "a receipt is signed by another key",
            &["EV-07"],
            |stage, dice| {
                let mut random = [0; 32];
                dice.fill(&mut random);
                let key = SigningKey::from_random(&random);
                let copy = copy_of(&stage.original)?;
                tell(&stage.product, &stage.original, &copy, None, Some(key))?;
                Ok(verify())
            },
        ),
        Case::new(
            "public-key-exchanged",
            Layer::Ledger,
            "the ledger is verified with another public key",
            &["EV-07"],
            |stage, dice| {
                grown(stage)?;
                let mut random = [0; 32];
                dice.fill(&mut random);
                let key = SigningKey::from_random(&random);
                let path = stage.scrap().join("other.pub");
                fs::write(&path, key.public().to_pem())?;
                Ok(Ask::steps(vec![Step::of(&["verify", "--key", &path.display().to_string()])]))
            },
        ),
        Case::new(
            "export-edited",
            Layer::Ledger,
            "one letter of an exported ledger",
            &["EV-07"],
            |stage, dice| {
                grown(stage)?;
                let path = stage.scrap().join("ledger.jsonl");
                let mut bytes = exported(stage)?.into_bytes();
                loop {
                    let at = dice.below(bytes.len() as u64) as usize;
                    if bytes[at].is_ascii_alphabetic() {
                        bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
                        break;
                    }
                }
                fs::write(&path, bytes)?;
                let key = stage.product.state().join("signing.pub");
                Ok(Ask::steps(vec![Step::of(&[
                    "verify",
                    &path.display().to_string(),
                    "--key",
                    &key.display().to_string(),
                ])]))
            },
        ),
        Case::new("export-cut", Layer::Ledger, "an exported ledger is cut off", &["EV-06"], |stage, dice| {
            grown(stage)?;
            let head = head(stage)?;
            let path = stage.scrap().join("ledger.jsonl");
            let text = exported(stage)?;
            let lines: Vec<&str> = text.lines().collect();
            let keep = 1 + dice.below(lines.len() as u64 - 1) as usize;
            fs::write(&path, format!("{}\n", lines[..keep].join("\n")))?;
            let key = stage.product.state().join("signing.pub");
            Ok(Ask::steps(vec![Step::of(&[
                "verify",
                &path.display().to_string(),
                "--key",
                &key.display().to_string(),
                "--head",
                &head,
            ])]))
        }),
    ]
}

/// The ledger as a person exports it.
fn exported(stage: &Stage) -> Outcome<String> {
    let path = stage.scrap().join("exported.jsonl");
    stage.product.run(&["receipts", "export", &path.display().to_string()])?.expect(0)?;
    Ok(fs::read_to_string(path)?)
}

/// Digest of the newest receipt.
fn head(stage: &Stage) -> Outcome<String> {
    let said: Value = serde_json::from_str(&stage.product.run(&["verify", "--json"])?.expect(0)?)?;
    Ok(said["head"]["digest"].as_str().ok_or("the ledger has no head")?.to_owned())
}

/// The clock lies: every act is dated by it, and `status` has to say so.
fn clock() -> Vec<Case> {
    let status = || Step::of(&["status"]);
    vec![
        Case::new(
            "clock-ahead",
            Layer::Clock,
            "the copy was made while the clock was a year ahead",
            &["TM-01", "TM-02"],
            move |stage, _| {
                let skewed = Step::of(&["backup", "it"]).with("FAKETIME", "+365d");
                run_with_clock(stage, skewed)?;
                Ok(Ask::steps(vec![status()]))
            },
        ),
        Case::new(
            "clock-was-ahead",
            Layer::Clock,
            "the copy was made while the clock was a year ahead; it was set right, and a year has passed",
            &["TM-02"],
            move |stage, _| {
                let ahead = |verb: &str| Step::of(&[verb, "it"]).with("FAKETIME", "+365d");
                run_with_clock(stage, ahead("backup"))?;
                run_with_clock(stage, ahead("drill"))?;
                // Something is sealed by the right clock; whatever it says, it does not make the copy young.
                stage.ask(&[Step::of(&["drill", "it"])])?;
                Ok(Ask::steps(vec![with_clock(status().with("FAKETIME", "+365d"))?]))
            },
        ),
        Case::healthy(
            "clock-set-right",
            "the clock ran ahead for a day and was set right",
            move |stage, _| {
                run_with_clock(stage, Step::of(&["backup", "it"]).with("FAKETIME", "+40d"))?;
                let mut ask = Ask::backup_and_drill();
                ask.steps.push(status());
                Ok(ask)
            },
        ),
        Case::healthy(
            "clock-jumped-in-a-run",
            "the clock jumped ahead during a run and was set right",
            move |stage, _| {
                let then = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 40);
                let copy = copy_of(&stage.original)?;
                tell_at(&stage.product, &stage.original, &copy, None, None, then)?;
                Ok(Ask::backup_and_drill())
            },
        ),
        Case::new(
            "clock-behind",
            Layer::Clock,
            "the clock is a year behind",
            &["TM-01", "TM-02"],
            move |_, _| Ok(Ask::steps(vec![with_clock(status().with("FAKETIME", "-365d"))?])),
        ),
        Case::new(
            "nothing-for-a-year",
            Layer::Clock,
            "a year has passed without a backup or a drill",
            &["TM-03", "TM-05"],
            move |_, _| Ok(Ask::steps(vec![with_clock(status().with("FAKETIME", "+365d"))?])),
        ),
        Case::new(
            "touched",
            Layer::Clock,
            "every file of an old repository was touched: it looks fresh",
            &["TM-03", "TM-05"],
            move |stage, _| {
                for place in ["data", "index", "snapshots"] {
                    let mut open = vec![stage.product.repository().join(place)];
                    while let Some(directory) = open.pop() {
                        for entry in fs::read_dir(directory)? {
                            let entry = entry?;
                            if entry.file_type()?.is_dir() {
                                open.push(entry.path());
                            }
                            let future =
                                std::time::SystemTime::now() + std::time::Duration::from_secs(365 * 86_400);
                            fs::File::open(entry.path())?.set_modified(future)?;
                        }
                    }
                }
                Ok(Ask::steps(vec![with_clock(status().with("FAKETIME", "+365d"))?]))
            },
        ),
    ]
}

fn with_clock(step: Step) -> Outcome<Step> {
    let library = seaworthy_testkit::components::libfaketime()?;
    Ok(step.with("LD_PRELOAD", library.display().to_string()).with("FAKETIME_DONT_FAKE_MONOTONIC", "1"))
}

fn run_with_clock(stage: &Stage, step: Step) -> Outcome {
    let said = stage.ask(&[with_clock(step)?])?;
    if said.exit == Some(0) { Ok(()) } else { Err(format!("{said:?}").into()) }
}
