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

/// A Debian release, the major of PostgreSQL that it has, and the packages that its programs need to run by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecondPostgres {
    /// The release.
    pub suite: &'static str,
    /// The major.
    pub major: u32,
    /// Its packages beside those of [`COMMON`].
    packages: &'static [&'static str],
}

/// Packages that have the same name in every release, without those that nothing loads in a test (the compiler of the JIT,
/// Perl, documentation).
const COMMON: &[&str] = &[
    "libaudit1",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcom-err2",
    "libgcc-s1",
    "libgssapi-krb5-2",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "liblz4-1",
    "liblzma5",
    "libpam0g",
    "libpq5",
    "libsasl2-2",
    "libstdc++6",
    "libsystemd0",
    "libtinfo6",
    "libxml2",
    "libxxhash0",
    "libzstd1",
    "zlib1g",
];

/// The second majors, the first one that is not the machine's own is installed: server and client of one release, with
/// the libraries of that release, because no machine has the C library of both.
pub const SECOND_POSTGRES: [SecondPostgres; 2] = [
    SecondPostgres {
        suite: "trixie",
        major: 17,
        packages: &[
            "postgresql-17",
            "postgresql-client-17",
            "libicu76",
            "libldap2",
            "libreadline8t64",
            "libssl3t64",
        ],
    },
    SecondPostgres {
        suite: "bookworm",
        major: 15,
        packages: &[
            "postgresql-15",
            "postgresql-client-15",
            "libgcrypt20",
            "libgpg-error0",
            "libicu72",
            "libldap-2.5-0",
            "libreadline8",
            "libssl3",
        ],
    },
];

impl SecondPostgres {
    /// Its packages, all of them.
    #[must_use]
    pub fn packages(&self) -> Vec<&'static str> {
        [self.packages, COMMON].concat()
    }

    /// The one for this machine: of another major than its own.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let own = postgres_bin().ok().and_then(|bin| major_of(&bin));
        let [first, other] = SECOND_POSTGRES;
        if own == Some(first.major) { other } else { first }
    }

    /// Where it is unpacked.
    ///
    /// A server must be able to run as another user than root, who cannot look into root's home.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        use std::os::unix::fs::MetadataExt as _;
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let is_root = fs::metadata("/proc/self").is_ok_and(|ours| ours.uid() == 0);
        let cache = if is_root {
            PathBuf::from("/var/cache")
        } else {
            absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?
        };
        Some(cache.join("seaworthy/components").join(format!("postgresql-{}-{}", self.major, self.suite)))
    }

    /// The directory of its programs, below the one that it is unpacked in.
    #[must_use]
    pub fn bin(&self) -> Option<PathBuf> {
        Some(self.directory()?.join(format!("root/usr/lib/postgresql/{}/bin", self.major)))
    }
}

fn major_of(bin: &Path) -> Option<u32> {
    bin.parent()?.file_name()?.to_str()?.parse().ok()
}

/// The directory with server and clients of another major than `postgres_bin`'s: the one named in
/// `SEAWORTHY_TEST_PG_SECOND_BIN`, else another one that the system has, else the one that `cargo xtask test` unpacks.
pub fn second_postgres_bin() -> Result<PathBuf, MissingProgram> {
    let named = env::var_os("SEAWORTHY_TEST_PG_SECOND_BIN").map(PathBuf::from);
    let own = postgres_bin()?;
    let wanted = SecondPostgres::of_this_machine();
    let of_system = postgres_directories().into_iter().filter(|bin| major_of(bin) != major_of(&own));
    named
        .into_iter()
        .chain(of_system)
        .chain(wanted.bin())
        .find(|directory| {
            ["postgres", "initdb", "pg_ctl", "pg_dump", "pg_restore", "psql"]
                .iter()
                .all(|name| is_executable(&directory.join(name)))
        })
        .ok_or_else(|| MissingProgram {
            program: format!("postgres {}", wanted.major),
            package: format!("postgresql-{}", wanted.major),
        })
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

/// The library that gives a program another clock when it is preloaded, with `FAKETIME` set.
pub fn libfaketime() -> Result<PathBuf, MissingProgram> {
    let missing = || MissingProgram { program: "libfaketime".to_owned(), package: "faketime".to_owned() };
    let entries = fs::read_dir("/usr/lib").map_err(|_| missing())?;
    entries
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"))
        .find(|path| path.is_file())
        .ok_or_else(missing)
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
        assert_ne!(major_of(&second_postgres_bin().unwrap()), major_of(&postgres_bin().unwrap()));
        assert!(!restics().unwrap().is_empty());
        for name in ["pg_dump", "sqlite3", "strace"] {
            program(name).unwrap();
        }
    }
}
