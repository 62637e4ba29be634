//! A throw-away PostgreSQL of the tests' own: made in a temporary directory, reached by a Unix socket, removed when dropped.
//!
//! A missing PostgreSQL is an error, never a test that is skipped. As root, the server runs as the user `postgres`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why there is no server, or why it did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No PostgreSQL is installed.
    #[error("no PostgreSQL below /usr/lib/postgresql; install the package `postgresql`")]
    NotInstalled,
    /// Root cannot run a server, and there is nobody else to run it as.
    #[error("no user `postgres`, as whom root could run a server")]
    NoUser,
    /// A program could not be run.
    #[error("run {program}")]
    Run {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {message}")]
    Failed {
        /// Which.
        program: String,
        /// What it said.
        message: String,
    },
}

/// A user and group to run programs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Whom a server is run as: `postgres` for root, ourselves (`None`) otherwise.
pub fn server_user() -> Result<Option<Ids>, ServerError> {
    use std::os::unix::fs::MetadataExt as _;
    let ours = std::fs::metadata("/proc/self")
        .map_err(|source| ServerError::Run { program: "stat /proc/self".to_owned(), source })?;
    if ours.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")
        .map_err(|source| ServerError::Run { program: "read /etc/passwd".to_owned(), source })?;
    users
        .lines()
        .find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&"postgres"))
                .then(|| Some(Ids { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? }))?
        })
        .map(Some)
        .ok_or(ServerError::NoUser)
}

/// Directory of the newest installed server's programs.
pub fn programs() -> Result<PathBuf, ServerError> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let major = path.file_name()?.to_str()?.parse().ok()?;
            Some((major, path.join("bin"))).filter(|(_, bin)| bin.join("postgres").is_file())
        })
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin).ok_or(ServerError::NotInstalled)
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
    user: Option<Ids>,
}

impl Server {
    /// Makes a cluster with UTF-8 and the C locale and starts it; `settings` are given as `name=value`.
    pub fn start(settings: &[&str]) -> Result<Self, ServerError> {
        let programs = programs()?;
        let user = server_user()?;
        let failed = |source| ServerError::Run { program: "make a directory".to_owned(), source };
        let directory = tempfile::Builder::new().prefix("swpg").tempdir_in("/tmp").map_err(failed)?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(directory.path(), Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
        let server = Self { directory, programs, user };
        let data = server.data();
        server.run("initdb", &["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-U", "postgres", "-D", &data], "")?;
        let mut options =
            format!("-k {} -c listen_addresses= -c fsync=off -c wal_level=logical", server.host());
        for setting in settings {
            options.push_str(&format!(" -c {setting}"));
        }
        let log = server.directory.path().join("log").display().to_string();
        server.run("pg_ctl", &["-D", &data, "-l", &log, "-o", &options, "-w", "-s", "start"], "")?;
        Ok(server)
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    /// Directory of its socket.
    #[must_use]
    pub fn host(&self) -> String {
        self.directory.path().display().to_string()
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        5432
    }

    /// A directory that the server's user may write to.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs one of the installation's programs against the server with `input`, and returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, ServerError> {
        let failed = |source| ServerError::Run { program: program.to_owned(), source };
        let mut command = Command::new(self.programs.join(program));
        command
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PGHOST", self.host())
            .env("PGPORT", self.port().to_string())
            .env("PGUSER", "postgres")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        let is_start = arguments.contains(&"start");
        if is_start {
            // The server keeps what it inherits; a pipe of ours would never end.
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(ServerError::Failed { program: program.to_owned(), message });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a script in a database and stops at the first error; returns unaligned rows.
    pub fn sql(&self, database: &str, script: &str) -> Result<String, ServerError> {
        self.run("psql", &["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database], script)
    }

    /// Makes a database.
    pub fn create(&self, database: &str, arguments: &[&str]) -> Result<(), ServerError> {
        let mut all = arguments.to_vec();
        all.push(database);
        self.run("createdb", &all, "").map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        if let Err(error) = self.run("pg_ctl", &["-D", &data, "-m", "immediate", "-s", "stop"], "") {
            // A server that is down already is what was wanted; its directory is removed either way.
            drop(error);
        }
    }
}

/// A small shop: customers, products, orders with lines, a view, a materialized view, triggers, roles.
///
/// Deterministic: the same `orders` make the same rows, so that two servers can be compared.
#[must_use]
pub fn shop(orders: u32) -> String {
    format!(
        r"
CREATE TYPE order_state AS ENUM ('new', 'paid', 'shipped', 'returned');
CREATE DOMAIN email AS text CHECK (VALUE ~ '^[^@]+@[^@]+$');
CREATE TABLE customers (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  mail email UNIQUE,
  tier varchar(10) NOT NULL DEFAULT 'basic' CHECK (tier IN ('basic', 'plus', 'gold')),
  joined timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE products (
  sku text PRIMARY KEY,
  title text NOT NULL,
  price numeric(12, 2) NOT NULL CHECK (price >= 0),
  tags text[] NOT NULL DEFAULT ARRAY['new'::text],
  about jsonb
);
CREATE TABLE orders (
  id bigserial PRIMARY KEY,
  customer bigint NOT NULL REFERENCES customers,
  state order_state NOT NULL DEFAULT 'new',
  placed timestamptz NOT NULL,
  note text
);
CREATE TABLE order_lines (
  order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
  line int NOT NULL,
  sku text NOT NULL REFERENCES products,
  quantity int NOT NULL CHECK (quantity > 0),
  price numeric(12, 2) NOT NULL,
  total numeric GENERATED ALWAYS AS (quantity * price) STORED,
  PRIMARY KEY (order_id, line)
);
CREATE INDEX orders_by_customer ON orders (customer, placed DESC);
CREATE INDEX orders_open ON orders (placed) WHERE state IN ('new', 'paid');
CREATE VIEW revenue AS SELECT o.id, sum(l.total) AS total FROM orders o JOIN order_lines l ON l.order_id = o.id GROUP BY o.id;
CREATE MATERIALIZED VIEW best AS SELECT sku, sum(quantity) AS sold FROM order_lines GROUP BY sku;
CREATE UNIQUE INDEX best_sku ON best (sku);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.note := coalesce(NEW.note, ''); RETURN NEW; END$$;
CREATE TRIGGER orders_touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO customers (name, mail, tier, joined)
  SELECT 'Customer ' || i, 'c' || i || '@example.org', (ARRAY['basic', 'plus', 'gold'])[1 + i % 3],
         timestamptz '2024-01-01 00:00:00+00' + i * interval '37 minutes'
  FROM generate_series(1, greatest({orders} / 5, 5)) i;
INSERT INTO products SELECT 'SKU-' || i, 'Product ' || i || ' “ä€😀”', (i * 7 % 1000) / 10.0, ARRAY['t' || i % 7, 'all'],
         jsonb_build_object('weight', i, 'parts', jsonb_build_array(i, i + 1))
  FROM generate_series(1, 100) i;
INSERT INTO orders (customer, state, placed, note)
  SELECT 1 + i % greatest({orders} / 5, 5), (enum_range(NULL::order_state))[1 + i % 4],
         timestamptz '2025-06-01 12:00:00+00' + i * interval '11 minutes', CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'line' || chr(10) || chr(9) || i END
  FROM generate_series(1, {orders}) i;
INSERT INTO order_lines (order_id, line, sku, quantity, price)
  SELECT o.id, l, 'SKU-' || 1 + (o.id * 31 + l) % 100, 1 + (o.id + l) % 5, (o.id % 100) / 4.0
  FROM orders o, generate_series(1, 3) l;
REFRESH MATERIALIZED VIEW best;
ANALYZE;
"
    )
}
