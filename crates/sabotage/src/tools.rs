//! Programs that lie: they end with success and did not do it, or did something else.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::Outcome;
use crate::case::{Ask, Case, Layer, Step};
use crate::stage::Stage;

/// Puts a directory of the real programs together, one of them replaced by a script, and configures it.
///
/// In the script, `REAL` is the path of the program that it stands for.
pub(crate) fn replaced(stage: &Stage, program: &str, script: &str) -> Outcome {
    let server = stage.server()?;
    let home = stage.scrap().join("tools");
    let bin = home.join("bin");
    fs::create_dir_all(&bin)?;
    for entry in fs::read_dir(server.programs())? {
        let entry = entry?;
        if entry.file_name() != program {
            symlink(entry.path(), bin.join(entry.file_name()))?;
        }
    }
    let real = server.programs().join(program);
    let path = bin.join(program);
    fs::write(&path, format!("#!/bin/sh\n{}\n", script.replace("REAL", &real.display().to_string())))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    stage.configure(&format!("bin_dir = \"{}\"\n", bin.display()))
}

/// A version is asked for before anything is done; a tool that lies about its work tells its version.
pub(crate) const VERSION: &str = "case \"$*\" in *--version*) exec REAL \"$@\";; esac\n";

/// The tool lies while the backup is made, or the restore.
fn lies(
    name: &str,
    what: &str,
    program: &'static str,
    script: &'static str,
    expected: &[&'static str],
) -> Case {
    Case::new(name, Layer::Tool, what, expected, move |stage, _| {
        replaced(stage, program, &format!("{VERSION}{script}"))?;
        let mut ask = if program == "pg_dump" { Ask::backup_and_drill() } else { Ask::drill() };
        ask.has_copy = false;
        Ok(ask)
    })
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        lies("dump-does-nothing", "pg_dump is /bin/true", "pg_dump", "exit 0", &["RP-10", "RP-04"]),
        lies(
            "dump-ends-early",
            "pg_dump ends with success in the middle",
            "pg_dump",
            "REAL \"$@\" | head -c 20000; exit 0",
            &["RP-10", "RP-04"],
        ),
        lies(
            "dump-fails-at-its-end",
            "pg_dump writes everything and fails",
            "pg_dump",
            "REAL \"$@\"; exit 1",
            &["RP-10"],
        ),
        lies(
            "dump-is-killed",
            "pg_dump is killed in the middle",
            "pg_dump",
            "REAL \"$@\" | head -c 30000; kill -9 $$",
            &["RP-10"],
        ),
        lies(
            "dump-drops-a-table",
            "pg_dump leaves a table out",
            "pg_dump",
            "exec REAL --exclude-table=events \"$@\"",
            &["CT-03", "CT-19"],
        ),
        lies(
            "dump-drops-rows",
            "pg_dump leaves a table's rows out",
            "pg_dump",
            "exec REAL --exclude-table-data=cargo \"$@\"",
            &["CT-01", "CT-03"],
        ),
        lies(
            "dump-drops-indexes",
            "pg_dump leaves indexes and constraints out",
            "pg_dump",
            "exec REAL --section=pre-data --section=data \"$@\"",
            &["CT-05"],
        ),
        lies(
            "dump-drops-grants",
            "pg_dump leaves grants out",
            "pg_dump",
            "exec REAL --no-acl \"$@\"",
            &["CT-11"],
        ),
        lies(
            "dump-drops-large-objects",
            "pg_dump leaves large objects out",
            "pg_dump",
            "exec REAL --no-blobs \"$@\"",
            &["CT-10"],
        ),
        lies(
            "dump-changes-a-digit",
            "a digit changes on the way",
            "pg_dump",
            "REAL \"$@\" | LC_ALL=C sed 's/row 13/row 31/'",
            &["CT-02", "RP-04"],
        ),
        lies(
            "dump-repeats-itself",
            "pg_dump writes its archive twice",
            "pg_dump",
            "REAL \"$@\"; exec REAL \"$@\"",
            &["RP-04", "RP-10", "CT-01"],
        ),
        lies(
            "dump-says-something-else",
            "pg_dump writes a message for an archive",
            "pg_dump",
            "echo 'connection pool is warming up'; exit 0",
            &["RP-10", "RP-04"],
        ),
        lies("restore-does-nothing", "pg_restore is /bin/true", "pg_restore", "exit 0", &["CT-03", "EV-01"]),
        lies(
            "restore-drops-rows",
            "pg_restore restores no rows",
            "pg_restore",
            "case \"$*\" in *--list*) exec REAL \"$@\";; esac\nexec REAL --section=pre-data --section=post-data \"$@\"",
            &["CT-01"],
        ),
        lies(
            "restore-drops-indexes",
            "pg_restore restores no indexes",
            "pg_restore",
            "case \"$*\" in *--list*) exec REAL \"$@\";; esac\nexec REAL --section=pre-data --section=data \"$@\"",
            &["CT-05"],
        ),
        lies(
            "restore-drops-grants",
            "pg_restore restores no grants",
            "pg_restore",
            "case \"$*\" in *--list*) exec REAL \"$@\";; esac\nexec REAL --no-acl \"$@\"",
            &["CT-11"],
        ),
        lies(
            "restore-fails-at-its-end",
            "pg_restore restores everything and fails",
            "pg_restore",
            "REAL \"$@\"; exit 1",
            &["CT-03", "RP-04", "ENV-OTHER"],
        ),
        Case::new("dump-hangs", Layer::Tool, "pg_dump never ends", &["EV-10", "ENV-TIMEOUT"], |stage, _| {
            replaced(stage, "pg_dump", &format!("{VERSION}exec sleep 600"))?;
            let mut ask = Ask::steps(vec![Step::of(&["backup", "it", "--timeout", "6s"])]);
            ask.has_copy = false;
            Ok(ask)
        }),
        Case::new(
            "restore-hangs",
            Layer::Tool,
            "pg_restore never ends",
            &["EV-10", "ENV-TIMEOUT"],
            |stage, _| {
                replaced(stage, "pg_restore", &format!("{VERSION}exec sleep 600"))?;
                let mut ask = Ask::steps(vec![Step::of(&["drill", "it", "--timeout", "10s"])]);
                ask.has_copy = false;
                Ok(ask)
            },
        ),
    ]
}

/// A `pg_dump` that warns about nothing in particular and does its work.
pub(crate) fn talkative(stage: &Stage) -> Outcome {
    let script = "echo 'pg_dump: warning: there are circular foreign-key constraints on this table:' >&2\nexec REAL \"$@\"";
    replaced(stage, "pg_dump", &format!("{VERSION}{script}"))
}

/// Programs of a version with a known hole come first; sound ones are installed where the system keeps them.
pub(crate) fn holed(stage: &Stage) -> Outcome {
    let version = stage.server()?.run("pg_dump", &["--version"], "")?;
    let word = version.split(") ").nth(1).ok_or("no version")?;
    let major: String = word.chars().take_while(char::is_ascii_digit).collect();
    replaced(stage, "pg_dump", &format!("echo 'pg_dump (PostgreSQL) {major}.1'"))
}
