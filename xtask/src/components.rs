//! What the tests need from outside of Rust: which of it is here, and how the rest gets here.
//!
//! Says what it will do before it does it, and asks for root only to install packages. A component that is still
//! missing afterwards is a failure with the command that installs it, never a skip. Versions are not pinned: a Debian
//! mirror keeps one per suite; what was found is printed.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use seaworthy_testkit::components::{SecondPostgres, second_postgres_bin};
use seaworthy_testkit::emulator::Kind;

use crate::process::{self, Echo};

/// Where the newer restic comes from: the Debian release that has one with the fixes we test against.
const NEWER_SUITE: &str = "trixie";
/// The oldest restic that counts as the newer one.
const NEWER_RESTIC: (u32, u32) = (0, 17);
/// 10 min: a slow mirror and a machine that is still busy with its own unattended upgrade.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// One program that the tests run.
struct Program {
    name: &'static str,
    /// The Debian package that brings it.
    package: &'static str,
    /// What it is for, as printed.
    purpose: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program { name: "postgres", package: "postgresql", purpose: "throw-away PostgreSQL servers" },
    Program { name: "pg_dump", package: "postgresql-client", purpose: "dumps of them" },
    Program { name: "pgbench", package: "postgresql-contrib", purpose: "load on them" },
    Program { name: "psql", package: "postgresql-client", purpose: "load on them" },
    Program { name: "restic", package: "restic", purpose: "the judge of what we write" },
    Program { name: "borg", package: "borgbackup", purpose: "a peer in the benchmarks" },
    Program { name: "sqlite3", package: "sqlite3", purpose: "the judge of restored databases" },
    Program { name: "strace", package: "strace", purpose: "full disks and failing syncs" },
    Program { name: "faketime", package: "faketime", purpose: "clocks that are wrong" },
    Program { name: "mkfs.ext4", package: "e2fsprogs", purpose: "disks that lose their power" },
    Program { name: "mount", package: "mount", purpose: "disks that lose their power" },
    Program { name: "kill", package: "procps", purpose: "stopping programs in the middle" },
    Program { name: "python3", package: "python3-venv", purpose: "LocalStack, an emulator of S3" },
    Program { name: "npm", package: "npm", purpose: "Azurite, an emulator of Azure Blob Storage" },
    Program { name: "gpg", package: "gnupg", purpose: "encrypted copies of other tools" },
    Program { name: "openssl", package: "openssl", purpose: "encrypted copies of other tools" },
    Program { name: "zstd", package: "zstd", purpose: "compressed copies of other tools" },
    Program { name: "xz", package: "xz-utils", purpose: "compressed copies of other tools" },
    Program { name: "bzip2", package: "bzip2", purpose: "compressed copies of other tools" },
    Program { name: "setpriv", package: "util-linux", purpose: "running servers as another user" },
];

/// What the tests are told about where things are.
#[derive(Debug, Default, Clone)]
pub(crate) struct Found {
    /// Environment variables for the test processes.
    pub(crate) environment: Vec<(String, String)>,
    /// One line per component, for the log.
    pub(crate) lines: Vec<String>,
    /// What is still missing, each with what to do about it.
    pub(crate) missing: Vec<String>,
}

/// Installs what is missing (when `install`), then looks again and says what is here.
pub(crate) fn provide(root: &Path, install: bool) -> Found {
    let absent: Vec<&Program> = PROGRAMS.iter().filter(|program| find(program.name).is_none()).collect();
    let mut problems = Vec::new();
    if !absent.is_empty() && install {
        let mut packages: Vec<&str> = absent.iter().map(|program| program.package).collect();
        packages.sort_unstable();
        packages.dedup();
        for program in &absent {
            println!("   `{}` is missing ({}): package {}", program.name, program.purpose, program.package);
        }
        if let Err(problem) = install_packages(&packages) {
            problems.push(problem);
        }
    }

    let mut found = Found { missing: problems, ..Found::default() };
    for program in PROGRAMS {
        match find(program.name) {
            Some(path) => found.lines.push(format!("{:<9} {}", program.name, describe(&path))),
            None => found.missing.push(format!(
                "`{}` ({}): apt-get install {}",
                program.name, program.purpose, program.package
            )),
        }
    }
    match newer_restic(root, install) {
        Ok(path) => {
            found.lines.push(format!("{:<9} {}", "restic", describe(&path)));
            found.environment.push(("SEAWORTHY_TEST_RESTIC".to_owned(), path.to_string_lossy().into_owned()));
        }
        Err(problem) => found.missing.push(problem),
    }
    match second_postgres(install) {
        Ok(directory) => {
            found.lines.push(format!("{:<9} {}", "postgres", describe(&directory.join("postgres"))));
            found
                .environment
                .push(("SEAWORTHY_TEST_PG_SECOND_BIN".to_owned(), directory.to_string_lossy().into_owned()));
        }
        Err(problem) => found.missing.push(problem),
    }
    for kind in [Kind::LocalStack, Kind::Azurite] {
        match emulator(kind, install) {
            Ok(program) => {
                found.lines.push(format!("{:<9} {} in {}", "emulator", kind.version(), program.display()));
            }
            Err(problem) => found.missing.push(problem),
        }
    }
    if let Some(server) = find("postgres")
        && let Some(directory) = server.parent()
    {
        found
            .environment
            .push(("SEAWORTHY_TEST_PG_BIN".to_owned(), directory.to_string_lossy().into_owned()));
    }
    found
}

/// The program, where tests would find it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    seaworthy_testkit::components::program(name).ok()
}

/// "/usr/bin/restic: restic 0.14.0 compiled with ...".
fn describe(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let argument = if name == "restic" { "version" } else { "--version" };
    let version = process::capture(&path.to_string_lossy(), &[argument], QUERY_LIMIT)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "does not tell its version".to_owned());
    format!("{}: {version}", path.display())
}

/// `apt-get install`, as root, through sudo, or not at all with the command to run by hand.
pub(crate) fn install_packages(packages: &[&str]) -> Result<(), String> {
    let by_hand = format!("sudo apt-get install --no-install-recommends {}", packages.join(" "));
    if find("apt-get").is_none() {
        return Err(format!(
            "this machine has no apt-get; install the equivalents of: {}",
            packages.join(" ")
        ));
    }
    let prefix: Vec<String> = if rustix::process::geteuid().is_root() {
        Vec::new()
    } else if find("sudo").is_none() {
        return Err(format!("not root and no sudo: as root, run: {by_hand}"));
    } else if process::capture("sudo", &["-n", "true"], QUERY_LIMIT).is_ok() {
        vec!["sudo".to_owned(), "-n".to_owned()]
    } else if std::io::stdin().is_terminal() {
        vec!["sudo".to_owned()]
    } else {
        return Err(format!("sudo wants a password and there is no terminal: run: {by_hand}"));
    };
    println!("   installing from this machine's own apt sources: {}", packages.join(" "));
    if packages.contains(&"postgresql") {
        println!("   (Debian's package may start a server of its own on port 5432; the tests do not use it)");
    }
    let wait = "-oDPkg::Lock::Timeout=300";
    // A stale list of a third party must not stop the install, so the update's outcome is shown and not judged.
    let updated = apt(&prefix, &[wait, "-q", "update"])?;
    if !updated.is_success() {
        println!("   apt-get update {}; trying to install anyway", updated.describe());
    }
    let mut arguments = vec![wait, "-q", "-y", "--no-install-recommends", "install"];
    arguments.extend(packages);
    let installed = apt(&prefix, &arguments)?;
    if installed.is_success() {
        Ok(())
    } else {
        Err(format!(
            "apt-get install {}: {}",
            installed.describe(),
            process::last_lines(&installed.output, 3)
        ))
    }
}

fn apt(prefix: &[String], arguments: &[&str]) -> Result<process::Ran, String> {
    let mut words: Vec<&str> = prefix.iter().map(String::as_str).collect();
    // Through `env`, because sudo does not pass our environment on.
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    words.extend(arguments);
    println!("   $ {}", words.join(" "));
    process::run(Command::new(words[0]).args(&words[1..]), INSTALL_LIMIT, Echo::Quiet)
        .map_err(|error| format!("start apt-get: {error}"))
}

/// Emulators come from the registries of their languages: nobody packages them.
fn emulator(kind: Kind, install: bool) -> Result<PathBuf, String> {
    if let Some(program) = kind.program() {
        return Ok(program);
    }
    let what = format!("{kind:?} {}", kind.version());
    if !install {
        return Err(format!("{what}: run `cargo xtask test` without --no-install"));
    }
    let directory = kind.directory().ok_or_else(|| format!("{what}: there is no HOME to keep it in"))?;
    println!("   {what} is missing (object stores): installing it into {}", directory.display());
    // Debian keeps a part of Python's own library in a package apart.
    if kind == Kind::LocalStack
        && process::capture("python3", &["-c", "import ensurepip, venv"], QUERY_LIMIT).is_err()
    {
        install_packages(&["python3-venv"])?;
    }
    let place = directory.to_string_lossy().into_owned();
    let python = directory.join("bin/python").to_string_lossy().into_owned();
    let steps: Vec<Vec<&str>> = match kind {
        // `uv` alone can take the packages of a date: with those of today its parts do not fit together.
        Kind::LocalStack => vec![
            vec!["python3", "-m", "venv", &place],
            vec![&python, "-m", "pip", "install", "--quiet", "uv"],
            vec![
                &python,
                "-m",
                "uv",
                "pip",
                "install",
                "--quiet",
                "--python",
                &python,
                "--exclude-newer",
                "2025-12-20",
                "localstack-core[base-runtime]==4.12.0",
                "moto-ext[s3]",
            ],
        ],
        Kind::Azurite => vec![vec![
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            &place,
            "azurite@3.35.0",
        ]],
    };
    for step in steps {
        println!("   $ {}", step.join(" "));
        let ran = process::run(Command::new(step[0]).args(&step[1..]), INSTALL_LIMIT, Echo::Quiet)
            .map_err(|error| format!("{what}: start `{}`: {error}", step[0]))?;
        if !ran.is_success() {
            // Half of it would be taken for all of it the next time.
            fs::remove_dir_all(&directory).ok();
            let why = process::last_lines(&ran.output, 3);
            return Err(format!("{what}: `{}` {}: {why}", step.join(" "), ran.describe()));
        }
    }
    kind.program().ok_or_else(|| format!("{what}: installed, and not there"))
}

/// A restic of at least [`NEWER_RESTIC`]: the one named by the caller, on PATH, in our cache, or fetched into it.
fn newer_restic(root: &Path, install: bool) -> Result<PathBuf, String> {
    let named = env::var_os("SEAWORTHY_TEST_RESTIC").map(PathBuf::from);
    let cache = cache_directory(root).join(format!("restic-{NEWER_SUITE}"));
    let cached = cache.join("root/usr/bin/restic");
    let candidates = named.into_iter().chain(find("restic")).chain([cached.clone()]);
    for candidate in candidates {
        if restic_version(&candidate).is_some_and(|version| version >= NEWER_RESTIC) {
            return Ok(candidate);
        }
    }
    if !install {
        return Err("a newer restic (>= 0.17): run `cargo xtask test` without --no-install, or name one in \
                    SEAWORTHY_TEST_RESTIC"
            .to_owned());
    }
    fetch(&cache, NEWER_SUITE, &["restic"]).map_err(|why| {
        format!(
            "a newer restic (>= 0.17), from Debian {NEWER_SUITE}: {why}; or name one in SEAWORTHY_TEST_RESTIC"
        )
    })?;
    match restic_version(&cached) {
        Some(version) if version >= NEWER_RESTIC => Ok(cached),
        Some((major, minor)) => Err(format!("Debian {NEWER_SUITE} has only restic {major}.{minor}")),
        None => Err(format!("`{}` does not run", cached.display())),
    }
}

/// Programs of a second major of PostgreSQL that run: named by the caller, of the system, in our cache, or fetched
/// into it.
fn second_postgres(install: bool) -> Result<PathBuf, String> {
    let runs = |directory: &Path| {
        ["postgres", "pg_restore"].iter().all(|name| {
            process::capture(&directory.join(name).to_string_lossy(), &["--version"], QUERY_LIMIT).is_ok()
        })
    };
    if let Ok(directory) = second_postgres_bin()
        && runs(&directory)
    {
        return Ok(directory);
    }
    let second = SecondPostgres::of_this_machine();
    let what = format!("PostgreSQL {} beside this machine's own", second.major);
    if !install {
        return Err(format!(
            "{what}: run `cargo xtask test` without --no-install, or name a directory of its programs in \
             SEAWORTHY_TEST_PG_SECOND_BIN"
        ));
    }
    let why = |why: String| {
        format!(
            "{what}, from Debian {}: {why}; or name a directory of its programs in SEAWORTHY_TEST_PG_SECOND_BIN",
            second.suite
        )
    };
    let (Some(cache), Some(directory)) = (second.directory(), second.bin()) else {
        return Err(why("there is no HOME to keep it in".to_owned()));
    };
    fetch(&cache, second.suite, &second.packages()).map_err(why)?;
    let root = cache.join("root");
    wrap(&root, &directory).map_err(|error| why(format!("prepare {}: {error}", directory.display())))?;
    if runs(&directory) {
        Ok(directory)
    } else {
        Err(why(format!("`{}` does not run", directory.join("postgres").display())))
    }
}

/// Puts a script in the place of each program, which runs it with the C library of its own release instead of this
/// machine's. A server finds its files by the place it was called at, so that is the script's.
fn wrap(root: &Path, directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let (triplet, loader) = match env::consts::ARCH {
        "aarch64" => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        _ => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
    };
    let libraries = root.join("usr/lib").join(triplet);
    // Before Debian 13 some libraries lie in /lib, which is /usr/lib on every installed system.
    let apart = root.join("lib").join(triplet);
    if apart.is_dir() {
        for entry in fs::read_dir(&apart)? {
            let entry = entry?;
            fs::rename(entry.path(), libraries.join(entry.file_name()))?;
        }
    }
    let programs = directory.with_file_name("programs");
    fs::rename(directory, &programs)?;
    fs::create_dir(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let quoted = |path: &Path| format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"));
    for entry in fs::read_dir(&programs)? {
        let program = entry?.path();
        let Some(name) = program.file_name() else { continue };
        let script = format!(
            "#!/bin/sh\nexec {} --library-path {} --argv0 \"$0\" {} \"$@\"\n",
            quoted(&libraries.join(loader)),
            quoted(&libraries),
            quoted(&program)
        );
        let place = directory.join(name);
        fs::write(&place, script)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Downloads packages with an apt state of its own, as an ordinary user, and unpacks them without installing them.
/// apt checks the signature of the suite and the digest of each package.
fn fetch(cache: &Path, suite: &str, packages: &[&str]) -> Result<(), String> {
    let mirror = debian_mirror().ok_or("no Debian mirror in this machine's apt sources")?;
    println!("   fetching {} of Debian {suite} from {mirror} into {}", packages.join(" "), cache.display());
    println!("   (download and unpack only; nothing of the system changes)");
    let fresh = cache.join("unpacked");
    let attempt = || -> std::io::Result<()> {
        // What an interrupted run left behind.
        if fresh.exists() {
            fs::remove_dir_all(&fresh)?;
        }
        for directory in ["lists/partial", "archives/partial", "etc", "unpacked"] {
            fs::create_dir_all(cache.join(directory))?;
        }
        for package in archives(cache)? {
            fs::remove_file(package)?;
        }
        // The status file is empty: what is installed here has no say in a download.
        fs::write(cache.join("status"), "")?;
        fs::write(
            cache.join("sources.list"),
            format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {suite} main\n"),
        )?;
        let place = cache.display();
        fs::write(
            cache.join("apt.conf"),
            format!(
                "Dir::Etc::sourcelist \"{place}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
                 Dir::State \"{place}\";\nDir::State::lists \"{place}/lists\";\n\
                 Dir::State::status \"{place}/status\";\nDir::Cache \"{place}\";\n\
                 Dir::Cache::archives \"{place}/archives\";\nAPT::Sandbox::User \"\";\n\
                 Acquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
            ),
        )
    };
    let below = |error: std::io::Error| format!("write below {}: {error}", cache.display());
    attempt().map_err(below)?;
    let configuration = cache.join("apt.conf");
    let apt = |arguments: &[&str]| -> Result<(), String> {
        let ran = process::run(
            Command::new("apt-get").args(arguments).env("APT_CONFIG", &configuration).current_dir(cache),
            INSTALL_LIMIT,
            Echo::Quiet,
        )
        .map_err(|error| format!("start apt-get: {error}"))?;
        if ran.is_success() {
            Ok(())
        } else {
            Err(format!("apt-get {}: {}", ran.describe(), process::last_lines(&ran.output, 3)))
        }
    };
    apt(&["-q", "update"])?;
    let named: Vec<String> = packages.iter().map(|package| format!("{package}/{suite}")).collect();
    let mut download = vec!["-q", "download"];
    download.extend(named.iter().map(String::as_str));
    apt(&download)?;
    let downloaded = archives(cache).map_err(below)?;
    if downloaded.len() < packages.len() {
        return Err(format!("apt-get download left {} of {} packages", downloaded.len(), packages.len()));
    }
    for package in &downloaded {
        process::capture(
            "dpkg",
            &["-x", &package.to_string_lossy(), &fresh.to_string_lossy()],
            Duration::from_secs(120),
        )?;
    }
    let finish = || -> std::io::Result<()> {
        let root = cache.join("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::rename(&fresh, &root)?;
        // The lists are 50 MB, and like the packages good for this one download.
        for package in downloaded {
            fs::remove_file(package)?;
        }
        fs::remove_dir_all(cache.join("lists"))
    };
    finish().map_err(below)
}

/// Packages that lie in a directory.
fn archives(cache: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Outside of the workspace when the user has a cache directory, so that a clean build does not fetch again.
fn cache_directory(root: &Path) -> PathBuf {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map_or_else(|| root.join("target/components"), |cache| cache.join("seaworthy/components"))
}

/// Major and minor of a restic binary; `None` when it does not run.
fn restic_version(binary: &Path) -> Option<(u32, u32)> {
    let text = process::capture(&binary.to_string_lossy(), &["version"], QUERY_LIMIT).ok()?;
    parse_restic_version(&text)
}

fn parse_restic_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("restic ")?.split_whitespace().next()?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The mirror that this machine installs Debian itself from, whichever format its sources have.
fn debian_mirror() -> Option<String> {
    let codename = fs::read_to_string("/etc/os-release").ok().and_then(|text| codename(&text))?;
    let mut sources = Vec::new();
    for path in source_files() {
        if let Ok(text) = fs::read_to_string(&path) {
            let is_deb822 = path.extension().is_some_and(|extension| extension == "sources");
            sources.extend(if is_deb822 { parse_deb822(&text) } else { parse_classic(&text) });
        }
    }
    sources.into_iter().find(|source| source.suites.contains(&codename)).map(|source| source.uri)
}

fn source_files() -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    parts.retain(|path| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    });
    parts.sort();
    parts.insert(0, PathBuf::from("/etc/apt/sources.list"));
    parts
}

fn codename(os_release: &str) -> Option<String> {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim().trim_matches('"').to_owned())
        .filter(|name| !name.is_empty())
}

#[derive(Debug, PartialEq, Eq)]
struct AptSource {
    uri: String,
    suites: Vec<String>,
}

/// `deb [options] uri suite component...`, one a line.
fn parse_classic(text: &str) -> Vec<AptSource> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb ").or_else(|| line.strip_prefix("deb\t")) else { continue };
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, after)| after),
            None => rest,
        };
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            sources.push(AptSource { uri: uri.to_owned(), suites: vec![suite.to_owned()] });
        }
    }
    sources
}

/// Paragraphs of `Field: values`, continued by indented lines.
fn parse_deb822(text: &str) -> Vec<AptSource> {
    let mut sources = Vec::new();
    for paragraph in paragraphs(text) {
        let values = |name: &str| -> Vec<String> {
            paragraph
                .iter()
                .find(|(field, _)| field.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default()
        };
        let is_enabled = !values("Enabled").iter().any(|value| value.eq_ignore_ascii_case("no"));
        if is_enabled && values("Types").iter().any(|kind| kind == "deb") {
            for uri in values("URIs") {
                sources.push(AptSource { uri, suites: values("Suites") });
            }
        }
    }
    sources
}

fn paragraphs(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::<(String, String)>::new()];
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            all.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = all.last_mut().and_then(|paragraph| paragraph.last_mut()) {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let (Some((field, value)), Some(paragraph)) = (line.split_once(':'), all.last_mut()) {
            paragraph.push((field.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all.retain(|paragraph| !paragraph.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_sources_are_read_with_and_without_options() {
        let text = "# deb http://commented/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror/debian bookworm main contrib # note\n\
                    deb-src http://mirror/debian bookworm main\n\
                    deb\thttp://security/debian-security bookworm-security main\n";
        let suites: Vec<(String, String)> =
            parse_classic(text).into_iter().map(|source| (source.uri, source.suites.join(" "))).collect();
        assert_eq!(
            suites,
            [
                ("http://mirror/debian".to_owned(), "bookworm".to_owned()),
                ("http://security/debian-security".to_owned(), "bookworm-security".to_owned()),
            ]
        );
    }

    #[test]
    fn deb822_sources_are_read_with_comments_continuations_and_disabled_paragraphs() {
        let text = "Types: deb deb-src\n# a comment inside\nURIs: http://mirror/debian\n http://second/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\n\n\
                    Types: deb\nURIs: http://off/debian\nSuites: bookworm\nEnabled: no\n\n\
                    Types: deb-src\nURIs: http://source/debian\nSuites: bookworm\n";
        let uris: Vec<String> = parse_deb822(text).into_iter().map(|source| source.uri).collect();
        assert_eq!(uris, ["http://mirror/debian", "http://second/debian"]);
        assert_eq!(parse_deb822(text)[0].suites, ["bookworm", "bookworm-updates"]);
    }

    #[test]
    fn the_codename_is_found_with_and_without_quotes() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"\n").as_deref(), Some("trixie"));
        assert_eq!(codename("ID=arch\n"), None);
    }

    #[test]
    fn versions_of_restic_compare_as_numbers() {
        let old = parse_restic_version("restic 0.14.0 compiled with go1.19.8 on linux/amd64").unwrap();
        let new = parse_restic_version("restic 0.18.0 compiled with go1.24 on linux/amd64").unwrap();
        assert!(old < NEWER_RESTIC && new >= NEWER_RESTIC && (0, 9) < NEWER_RESTIC);
        assert_eq!(parse_restic_version("command not found"), None);
    }
}
