//! The programs that tests run: found, or named together with the command that installs them.
//!
//! A missing program is an error that a test fails with. Nothing here returns early or falls back to a fake.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// A program that a test needs and this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{program}` is not installed; run `cargo xtask test`, or: apt-get install {package}")]
pub struct MissingProgram {
    /// What was looked for.
    pub program: String,
    /// The Debian package that brings it.
    pub package: String,
}

/// Finds `name`, or says which package brings it.
///
/// Looks where Debian keeps PostgreSQL first (newest major first), because the wrappers on PATH choose a version by
/// themselves; then on PATH; then where administrators' programs are.
pub fn program(name: &str) -> Result<PathBuf, MissingProgram> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = postgres_directories();
    places.extend(env::split_paths(&path));
    places.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    places
        .into_iter()
        .map(|place| place.join(name))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| MissingProgram { program: name.to_owned(), package: package(name).to_owned() })
}

/// The directory with `postgres`, `initdb`, `pg_ctl` and the clients: the one named in `SEAWORTHY_TEST_PG_BIN`, else the
/// newest major that is installed with its server.
pub fn postgres_bin() -> Result<PathBuf, MissingProgram> {
    let named = env::var_os("SEAWORTHY_TEST_PG_BIN").map(PathBuf::from);
    named
        .into_iter()
        .chain(postgres_directories())
        .find(|directory| {
            ["postgres", "initdb", "pg_ctl"].iter().all(|name| is_executable(&directory.join(name)))
        })
        .ok_or_else(|| MissingProgram { program: "postgres".to_owned(), package: "postgresql".to_owned() })
}

/// Every directory with PostgreSQL programs, newest major first.
pub fn postgres_directories() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let mut majors: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors.into_iter().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))).collect()
}

/// Every restic that judges us: the one on PATH and those in `SEAWORTHY_TEST_RESTIC` (separated by colons).
///
/// Never empty. A path in the variable that is not a program is an error: a judge that was named must judge.
pub fn restics() -> Result<Vec<PathBuf>, MissingProgram> {
    let missing = |program: &Path| MissingProgram {
        program: program.to_string_lossy().into_owned(),
        package: "restic".to_owned(),
    };
    let mut found = Vec::new();
    if let Ok(installed) = program("restic") {
        found.push(installed);
    }
    for named in env::split_paths(&env::var_os("SEAWORTHY_TEST_RESTIC").unwrap_or_default()) {
        if named.as_os_str().is_empty() || found.contains(&named) {
            continue;
        }
        if !is_executable(&named) {
            return Err(missing(&named));
        }
        found.push(named);
    }
    if found.is_empty() { Err(missing(Path::new("restic"))) } else { Ok(found) }
}

fn package(program: &str) -> &str {
    match program {
        "postgres" | "initdb" | "pg_ctl" => "postgresql",
        "psql" | "pg_dump" | "pg_restore" | "pg_dumpall" => "postgresql-client",
        "pgbench" => "postgresql-contrib",
        "borg" => "borgbackup",
        "setpriv" | "unshare" | "runuser" => "util-linux",
        other => other,
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_found_and_what_is_not_names_its_package() {
        assert!(program("ls").unwrap().is_absolute());
        let missing = program("no-such-program").unwrap_err();
        assert!(missing.to_string().contains("apt-get install no-such-program"), "{missing}");
        assert_eq!(package("pg_restore"), "postgresql-client");
    }

    #[test]
    fn the_components_of_the_suite_are_here() {
        assert!(postgres_bin().unwrap().join("postgres").exists());
        assert!(!restics().unwrap().is_empty());
        for name in ["pg_dump", "sqlite3", "strace"] {
            program(name).unwrap();
        }
    }
}
