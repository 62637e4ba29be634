//! The client's programs: where they are, whether they are new enough for the server, whether one has a known hole on
//! the path it is used for.
//!
//! A floor is per tool and path, because most holes are in `psql`'s meta-commands, which are never used here.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;

/// Longest a program may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A version of PostgreSQL 10 or newer: major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A program and what it does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// Reads a live, possibly hostile server.
    PgDump,
    /// Writes to a server over a connection of its own, from a directory archive.
    PgRestore,
    /// The scratch engine.
    Postgres,
    /// Makes the scratch engine's directory.
    Initdb,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::PgDump => "pg_dump",
            Self::PgRestore => "pg_restore",
            Self::Postgres => "postgres",
            Self::Initdb => "initdb",
        }
    }
}

/// The first minor of `major` without the known holes on `tool`'s path, and the hole that sets it.
///
/// CVE-2024-7348: a relation replaced while `pg_dump` runs makes it execute the replacement's owner's code. CVE-2025-8715:
/// a newline in an object's name becomes SQL in the session that restores it. CVE-2025-8714 concerns plain dumps fed to
/// `psql`, a path that does not exist here; a scratch engine is isolated instead of trusted and has no floor.
fn floor(tool: Tool, major: u32) -> Option<(u32, &'static str)> {
    match tool {
        Tool::PgDump | Tool::PgRestore => {
            let minor = match major {
                13 => 22,
                14 => 19,
                15 => 14,
                16 => 10,
                17 => 6,
                ..=12 => u32::MAX,
                _ => return None,
            };
            Some((
                minor,
                "CVE-2025-8715 (newline in a name) and CVE-2024-7348 (relation replaced during the dump)",
            ))
        }
        Tool::Postgres | Tool::Initdb => None,
    }
}

/// A program that was found and said its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) version: Version,
}

impl Found {
    /// Another program of the same installation.
    pub(super) fn sibling(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// The path as an argument.
    pub(super) fn argument(&self) -> Result<String, DriverError> {
        argument(&self.path)
    }
}

/// A path as an argument of a program.
pub(super) fn argument(path: &Path) -> Result<String, DriverError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        DriverError::new(ErrorKind::Unsupported, format!("use the path {}", path.display()))
            .hint("paths of programs and of scratch directories must be UTF-8")
    })
}

/// Reads `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; a release candidate or a beta counts as minor 0.
fn parse_version(text: &str) -> Option<Version> {
    let word = text.split(") ").nth(1)?.split_whitespace().next()?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let major = digits(word);
    let minor = word.strip_prefix(&major)?.strip_prefix('.').map(digits).unwrap_or_default();
    Some(Version {
        major: major.parse().ok()?,
        minor: if minor.is_empty() { 0 } else { minor.parse().ok()? },
    })
}

/// What a sandbox must show besides `/usr`, so that the programs of a directory run inside it: they and what they load.
///
/// Nothing where they are below `/usr`. Of a directory that holds other things too (a home with a `bin`), only what a
/// server's installation consists of.
#[must_use]
pub fn installation(programs: &Path) -> Vec<PathBuf> {
    let mut base = programs.parent();
    // Debian keeps them in lib/postgresql/17/bin, and what they share in share/postgresql/17.
    if let Some(place) = base.and_then(Path::parent)
        && place.file_name().is_some_and(|name| name == "postgresql")
        && let Some(library) = place.parent()
        && library.file_name().is_some_and(|name| name == "lib" || name == "libexec")
    {
        base = library.parent();
    }
    let Some(base) = base.filter(|base| base.parent().is_some() && !programs.starts_with("/usr")) else {
        return Vec::new();
    };
    let mut shown: Vec<PathBuf> = ["lib", "lib64", "libexec", "share"]
        .into_iter()
        .map(|name| base.join(name))
        .filter(|path| path.is_dir())
        .collect();
    if programs.is_dir() && !shown.iter().any(|path| programs.starts_with(path)) {
        shown.push(programs.to_path_buf());
    }
    shown
}

/// Directories in which programs of PostgreSQL are usually installed, besides those that the caller knows.
fn directories(known: &[PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = known.to_vec();
    for parent in ["/usr/lib/postgresql", "/usr/libexec/postgresql", "/opt/homebrew/opt", "/usr"] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        let mut versions: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                match parent {
                    "/usr" => name.starts_with("pgsql-"),
                    "/opt/homebrew/opt" => name.starts_with("postgresql@"),
                    _ => name.chars().all(|character| character.is_ascii_digit()),
                }
            })
            .map(|path| path.join("bin"))
            .collect();
        versions.sort();
        found.extend(versions);
    }
    found.push(PathBuf::from("/usr/local/pgsql/bin"));
    found.push(PathBuf::from("/usr/local/bin"));
    found.push(PathBuf::from("/usr/bin"));
    found
}

/// Runs a program of the host with a cleared environment to its end; killed when the run stops.
pub(super) async fn run(
    cx: &Cx,
    program: &Path,
    arguments: &[String],
    environment: &[(String, String)],
) -> Result<std::process::Output, DriverError> {
    let context = format!("run {}", program.display());
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    cx.run(output).await?.map_err(|error| DriverError::io(context, error))
}

async fn version_of(cx: &Cx, program: &Path) -> Result<Option<Version>, DriverError> {
    let environment = [("LC_ALL".to_owned(), "C".to_owned())];
    let limited = cx.within(VERSION_TIMEOUT);
    match run(&limited, program, &["--version".to_owned()], &environment).await {
        Ok(output) if output.status.success() => Ok(parse_version(&String::from_utf8_lossy(&output.stdout))),
        Ok(_) => Ok(None),
        // A program that cannot be run is not a candidate; the run's own end is not the program's fault.
        Err(error) => {
            cx.check().map(|()| None).map_err(DriverError::from).map_err(|stop| stop.because(error))
        }
    }
}

/// Every installed `tool` whose version is known: those in directories that the user named first, then oldest major
/// first, newest minor first within a major.
async fn installed(cx: &Cx, tool: Tool, known: &[PathBuf]) -> Result<Vec<Found>, DriverError> {
    let mut found: Vec<Found> = Vec::new();
    for directory in directories(known) {
        let path = directory.join(tool.name());
        // The wrapper that Debian puts into /usr/bin needs an environment; what it wraps is found by itself.
        let is_wrapper = std::fs::canonicalize(&path).is_ok_and(|real| real.ends_with("pg_wrapper"));
        if is_wrapper || !path.is_file() || found.iter().any(|other| other.path == path) {
            continue;
        }
        if let Some(version) = version_of(cx, &path).await? {
            found.push(Found { path, version });
        }
    }
    found.sort_by_key(|found| {
        let is_named = known.iter().any(|directory| found.path.starts_with(directory));
        (!is_named, found.version.major, std::cmp::Reverse(found.version.minor))
    });
    Ok(found)
}

/// The first `tool` of a major in `majors` that is installed and has no known hole on its path; what the user named
/// comes before what the system has, and a small major before a large one.
pub(super) async fn find(
    cx: &Cx,
    tool: Tool,
    majors: std::ops::RangeInclusive<u32>,
    known: &[PathBuf],
    code: FindingCode,
) -> Result<Found, DriverError> {
    let installed = installed(cx, tool, known).await?;
    let wanted = if majors.start() == majors.end() {
        format!("{} {}", tool.name(), majors.start())
    } else {
        format!("{} {} or newer", tool.name(), majors.start())
    };
    let mut refused = None;
    for found in &installed {
        if !majors.contains(&found.version.major) {
            continue;
        }
        match floor(tool, found.version.major) {
            Some((minor, hole)) if found.version.minor < minor => {
                refused = refused.or(Some(format!(
                    "{} is version {}, which has {hole}; install {}.{minor} or newer",
                    found.path.display(),
                    found.version,
                    found.version.major
                )));
            }
            Some(_) | None => return Ok(found.clone()),
        }
    }
    if let Some(hint) = refused {
        return Err(DriverError::new(ErrorKind::Unsupported, format!("find a {wanted} without known holes"))
            .code(FindingCode::ToolRefused)
            .hint(hint));
    }
    let versions: Vec<String> = installed.iter().map(|found| found.version.to_string()).collect();
    let seen =
        if versions.is_empty() { "none is".to_owned() } else { format!("only {} are", versions.join(", ")) };
    Err(DriverError::new(ErrorKind::Unsupported, format!("find {wanted}: {seen} installed")).code(code).hint(
        format!(
            "install the package postgresql-{} (or postgresql-client-…), or set `bin_dir`",
            majors.start()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_tools_say() {
        let version = |text: &str| parse_version(text).map(|version| version.to_string());
        assert_eq!(version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)").as_deref(), Some("15.18"));
        assert_eq!(version("postgres (PostgreSQL) 18beta1").as_deref(), Some("18.0"));
        assert_eq!(version("pg_dump (PostgreSQL) 9.6.24").as_deref(), Some("9.6"));
        assert_eq!(version("hello").as_deref(), None);
    }

    #[test]
    fn what_programs_load_is_shown_with_them_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        for name in ["bin", "lib", "share", "documents", "root/usr/lib/postgresql/17/bin", "root/usr/share"] {
            std::fs::create_dir_all(home.path().join(name)).unwrap();
        }
        let shown = |programs: &str| -> Vec<String> {
            let relative = |path: PathBuf| path.strip_prefix(home.path()).unwrap().display().to_string();
            installation(&home.path().join(programs)).into_iter().map(relative).collect()
        };
        assert_eq!(shown("bin"), ["lib", "share", "bin"]);
        assert_eq!(shown("root/usr/lib/postgresql/17/bin"), ["root/usr/lib", "root/usr/share"]);
        assert!(shown("missing/bin").is_empty());
        for shown_already in ["/usr/lib/postgresql/15/bin", "/usr/bin", "/bin", "/"] {
            assert!(installation(Path::new(shown_already)).is_empty(), "{shown_already}");
        }
    }

    #[test]
    fn a_tool_with_a_hole_on_its_path_is_below_its_floor() {
        assert!(floor(Tool::PgDump, 15).is_some_and(|(minor, _)| minor > 13 && minor <= 18));
        assert!(floor(Tool::PgRestore, 12).is_some_and(|(minor, _)| minor == u32::MAX));
        assert!(floor(Tool::Postgres, 15).is_none());
    }
}
