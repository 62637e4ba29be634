//! Finds what could be backed up here: PostgreSQL sockets, SQLite files, directories. Reads names and headers, nothing
//! else, and never for longer than a few seconds.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The first sixteen bytes of every SQLite database (sqlite.org/fileformat2.html, 1.3).
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Deepest directory that is looked into below a starting point.
const DEPTH_MAX: usize = 4;
/// Longest search.
const SEARCH_MAX: Duration = Duration::from_secs(5);

/// A PostgreSQL server's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    /// Directory of the socket.
    pub(crate) directory: String,
    /// Port, which is part of its name.
    pub(crate) port: u16,
}

/// Sockets of PostgreSQL servers that run here.
pub(crate) fn postgres_sockets() -> Vec<Socket> {
    let mut found = Vec::new();
    for directory in ["/var/run/postgresql", "/run/postgresql", "/tmp"] {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let port = name
                .to_str()
                .and_then(|name| name.strip_prefix(".s.PGSQL."))
                .and_then(|port| port.parse().ok());
            if let Some(port) = port {
                let canonical = std::fs::canonicalize(directory).unwrap_or_else(|_| PathBuf::from(directory));
                let socket = Socket { directory: canonical.display().to_string(), port };
                if !found.contains(&socket) {
                    found.push(socket);
                }
            }
        }
    }
    found
}

/// SQLite databases below `starts`. A search that takes too long ends with what it has found.
pub(crate) fn sqlite_files(starts: &[PathBuf]) -> Vec<PathBuf> {
    let until = Instant::now() + SEARCH_MAX;
    let mut found = Vec::new();
    for start in starts {
        search(start, 0, until, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn search(directory: &Path, depth: usize, until: Instant, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if Instant::now() >= until {
            return;
        }
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() && depth < DEPTH_MAX {
            search(&path, depth + 1, until, found);
        } else if kind.is_file() && is_sqlite(&path) {
            found.push(path);
        }
    }
}

/// Whether a file begins as a SQLite database does.
pub(crate) fn is_sqlite(path: &Path) -> bool {
    let mut magic = [0_u8; 16];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && &magic == SQLITE_MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_known_by_its_header_not_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("fake.sqlite"), "not a database at all").unwrap();
        let real = directory.path().join("state.db");
        rusqlite::Connection::open(&real).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        assert_eq!(sqlite_files(&[directory.path().to_owned()]), vec![real]);
    }
}
