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

/// Directory of the newest installed server's programs, or the one that `SEAWORTHY_TEST_PG_BIN` names.
pub fn programs() -> Result<PathBuf, ServerError> {
    if let Some(named) = std::env::var_os("SEAWORTHY_TEST_PG_BIN").map(PathBuf::from) {
        return if named.join("postgres").is_file() { Ok(named) } else { Err(ServerError::NotInstalled) };
    }
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
    /// What it is started with.
    options: String,
}

impl Server {
    /// Makes a cluster with UTF-8 and the C locale and starts it; `settings` are given as `name=value`.
    pub fn start(settings: &[&str]) -> Result<Self, ServerError> {
        Self::start_from(programs()?, settings)
    }

    /// The same, in a directory below `place`, whose name must be short: a socket's has 107 bytes at most.
    pub fn start_in(place: &Path, settings: &[&str]) -> Result<Self, ServerError> {
        Self::start_with(place, programs()?, settings)
    }

    /// The same, with the programs of a directory.
    pub fn start_from(programs: PathBuf, settings: &[&str]) -> Result<Self, ServerError> {
        Self::start_with(Path::new("/tmp"), programs, settings)
    }

    fn start_with(place: &Path, programs: PathBuf, settings: &[&str]) -> Result<Self, ServerError> {
        let user = server_user()?;
        let failed = |source| ServerError::Run { program: "make a directory".to_owned(), source };
        let directory = tempfile::Builder::new().prefix("swpg").tempdir_in(place).map_err(failed)?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(directory.path(), Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
        let mut server = Self { directory, programs, user, options: String::new() };
        let data = server.data();
        server.run(
            "initdb",
            &[
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "-U",
                "postgres",
                "-D",
                &data,
            ],
            "",
        )?;
        // What a test was doing ends with it, also where it was killed.
        let mut options = format!(
            "-k {} -c listen_addresses= -c fsync=off -c wal_level=logical -c client_connection_check_interval=1s",
            server.host()
        );
        for setting in settings {
            options.push_str(&format!(" -c {setting}"));
        }
        let log = server.directory.path().join("log").display().to_string();
        server.run("pg_ctl", &["-D", &data, "-l", &log, "-o", &options, "-w", "-s", "start"], "")?;
        server.options = options;
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

    /// Directory of its programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
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

    /// Stops it; [`Server::restart`] starts it again.
    pub fn stop(&self) -> Result<(), ServerError> {
        self.run("pg_ctl", &["-D", &self.data(), "-m", "fast", "-w", "-s", "stop"], "").map(drop)
    }

    /// Stops it and starts it again, or starts one that is stopped; `mode` is `fast` (clients are told) or `immediate` (as a crash).
    pub fn restart(&self, mode: &str) -> Result<(), ServerError> {
        let log = self.directory.path().join("log").display().to_string();
        self.run("pg_ctl", &["-D", &self.data(), "-l", &log, "-m", mode, "-w", "-s", "restart"], "").map(drop)
    }

    /// Kills all of the server's processes, as a machine that stops does: nothing is told, nothing is written.
    pub fn kill(&self) -> Result<(), ServerError> {
        use rustix::process::{Pid, Signal, kill_process, test_kill_process};
        let failed = |source| ServerError::Run { program: "kill".to_owned(), source };
        let file = Path::new(&self.data()).join("postmaster.pid");
        let told = std::fs::read_to_string(&file).map_err(failed)?;
        let first = told.lines().next().and_then(|line| line.parse::<i32>().ok());
        let first = first.ok_or_else(|| failed(std::io::Error::other("postmaster.pid names no process")))?;
        // Stopped, it begins no other one while the others are looked for.
        let mut all = vec![first];
        let signal = |pid: i32, signal| Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
        signal(first, Signal::STOP);
        for entry in std::fs::read_dir("/proc").map_err(failed)?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that ends while it is looked at is none. The name, in brackets, may hold anything.
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
            if parent == Some(first) {
                all.push(pid);
            }
        }
        // The children first: without their parent they would be asked to end, and might say something before.
        for pid in all.iter().rev() {
            signal(*pid, Signal::KILL);
        }
        let began = std::time::Instant::now();
        let lives = |pid: &i32| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let is_dead = state.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'));
            !is_dead && Pid::from_raw(*pid).is_some_and(|pid| test_kill_process(pid).is_ok())
        };
        while all.iter().any(lives) {
            if began.elapsed() > RECOVERY {
                return Err(failed(std::io::Error::other("a process does not end")));
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // Its number may be another process's by now, which nobody must take for the server.
        let socket = self.directory.path().join(format!(".s.PGSQL.{}", self.port()));
        for left in [file, socket.with_extension(format!("{}.lock", self.port())), socket] {
            std::fs::remove_file(left).map_err(failed)?;
        }
        Ok(())
    }

    /// Starts a server that was killed; it recovers by itself.
    pub fn revive(&self) -> Result<(), ServerError> {
        let log = self.directory.path().join("log").display().to_string();
        let began = std::time::Instant::now();
        loop {
            let words = ["-D", &self.data(), "-l", &log, "-o", &self.options, "-w", "-s", "start"];
            match self.run("pg_ctl", &words, "") {
                // What of its memory is left is given back a moment later.
                Err(_) if began.elapsed() < RECOVERY => {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
                Err(error) => {
                    let said = std::fs::read_to_string(&log).unwrap_or_default();
                    let end: Vec<&str> = said.lines().rev().take(20).collect();
                    let message =
                        format!("{error}\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
                    return Err(ServerError::Failed { program: "pg_ctl".to_owned(), message });
                }
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Makes a standby of it in the directory `root`, which follows it until it is dropped.
    pub fn standby(&self, root: &Path) -> Result<Beside<'_>, ServerError> {
        let failed = |source| ServerError::Run { program: "mkdir".to_owned(), source };
        std::fs::create_dir(root).map_err(failed)?;
        if let Some(user) = self.user {
            std::os::unix::fs::chown(root, Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
        let data = root.join("data").display().to_string();
        self.run("pg_basebackup", &["-D", &data, "-R", "-X", "stream", "-c", "fast", "--no-sync"], "")?;
        let beside = Beside { server: self, root: root.to_owned() };
        beside.start()?;
        Ok(beside)
    }

    /// Starts a restored data directory (`data` below `root`, which becomes the server's user's) beside this server, and waits until it
    /// has recovered.
    pub fn start_beside(&self, root: &Path) -> Result<Beside<'_>, ServerError> {
        let beside = self.begin_beside(root)?;
        let log = root.join("server.log");
        let began = std::time::Instant::now();
        // Until it has recovered it lets nobody in, or only to read.
        while beside.sql("postgres", "SELECT pg_is_in_recovery()").map_or(true, |told| told.trim() != "f") {
            if began.elapsed() > RECOVERY || !Path::new(&beside.data()).join("postmaster.pid").exists() {
                let message = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(ServerError::Failed { program: "recovery".to_owned(), message });
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Ok(beside)
    }

    /// Starts a restored data directory, and does not wait for the end of its recovery.
    pub fn begin_beside(&self, root: &Path) -> Result<Beside<'_>, ServerError> {
        let failed = |source| ServerError::Run { program: "chown".to_owned(), source };
        let mut owned = Command::new("chown");
        owned.args(["-R", "--reference", &self.data()]).arg(root);
        owned.status().map_err(failed)?;
        let beside = Beside { server: self, root: root.to_owned() };
        beside.start()?;
        Ok(beside)
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
        let is_start = arguments.iter().any(|argument| matches!(*argument, "start" | "restart"));
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

    /// Begins a script that goes on by itself; it ends with the server, or when the process that is returned is killed.
    pub fn begin(&self, database: &str, script: &str) -> Result<std::process::Child, ServerError> {
        let failed = |source| ServerError::Run { program: "psql".to_owned(), source };
        let host = self.host();
        let mut command = Command::new(self.programs.join("psql"));
        command
            .args([
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                database,
                "-h",
                &host,
                "-c",
                script,
            ])
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PGCLIENTENCODING", "UTF8")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command.spawn().map_err(failed)
    }

    /// Everything in a database, one line a thing, said by the server and by `pg_dump -s`: rows counted and hashed in an
    /// order of their own text, sequences, large objects, definitions. Two databases are equal when their lines are.
    ///
    /// Shares no query with the product: it is an oracle for it.
    pub fn fingerprint(&self, database: &str) -> Result<String, ServerError> {
        self.fingerprint_at(&self.host(), database)
    }

    /// The same of the server that listens in `host`, with this one's programs.
    fn fingerprint_at(&self, host: &str, database: &str) -> Result<String, ServerError> {
        let asked = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", host, "-d", database];
        let mut lines = self.run("psql", &asked, FINGERPRINT)?;
        let definitions = self.run("pg_dump", &["-s", "-h", host, "-d", database], "")?;
        for line in definitions.lines() {
            // A nonce of each run, and comments.
            if !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict") && !line.starts_with("--")
            {
                lines.push_str(line);
                lines.push('\n');
            }
        }
        Ok(lines)
    }

    /// Roles, memberships, and settings of roles and databases, sorted.
    pub fn globals(&self) -> Result<Vec<String>, ServerError> {
        let text = self.run("pg_dumpall", &["--globals-only", "--no-role-passwords"], "")?;
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| !line.starts_with("--") && !line.starts_with('\\') && !line.is_empty())
            .map(str::to_owned)
            .collect();
        lines.sort();
        Ok(lines)
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

/// The server's own account of a database's content.
const FINGERPRINT: &str = r#"
SET datestyle = 'ISO, YMD'; SET intervalstyle = postgres; SET timezone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = hex; SET search_path = pg_catalog;
SELECT format('SELECT %L, count(*), md5(string_agg(h, '''' ORDER BY h COLLATE "C")) FROM (SELECT md5(t::text) AS h FROM ONLY %s t) x', c.oid::regclass::text, c.oid::regclass)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  ORDER BY c.oid::regclass::text COLLATE "C"
\gexec
SELECT format('SELECT %L, last_value, is_called FROM %s', c.oid::regclass::text, c.oid::regclass)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' ORDER BY c.oid::regclass::text COLLATE "C"
\gexec
SELECT oid, length(lo_get(oid)), md5(lo_get(oid)), pg_get_userbyid(lomowner), lomacl FROM pg_largeobject_metadata ORDER BY oid;
SELECT pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider, pg_get_userbyid(datdba), datconnlimit FROM pg_database WHERE datname = current_database();
"#;

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

/// One database with every common kind of object, of column and of name, and with states that a restore easily loses.
///
/// `database` is its name, in which some settings are set. Makes roles, so it is for one database of a server.
#[must_use]
pub fn every_kind(database: &str) -> String {
    format!(
        r#"
CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION pg_trgm; CREATE EXTENSION postgres_fdw; CREATE EXTENSION btree_gist;
CREATE ROLE app_owner; CREATE ROLE app_reader LOGIN CONNECTION LIMIT 5 VALID UNTIL '2030-01-01';
CREATE ROLE "Odd ""Role"" é
x"; GRANT app_reader TO "Odd ""Role"" é
x" WITH ADMIN OPTION; GRANT pg_read_all_stats TO app_reader;
COMMENT ON ROLE app_reader IS 'reads';
ALTER ROLE app_reader SET search_path TO "$user", public, "odd, schema"; ALTER ROLE app_reader SET work_mem TO '8MB';
ALTER ROLE app_reader IN DATABASE "{database}" SET timezone TO 'Asia/Tokyo';
ALTER DATABASE "{database}" SET datestyle TO 'German, DMY'; ALTER DATABASE "{database}" SET app.word TO 'it''s';
ALTER DATABASE "{database}" OWNER TO app_owner; ALTER DATABASE "{database}" CONNECTION LIMIT 50;
COMMENT ON DATABASE "{database}" IS 'it''s every kind'; GRANT CREATE ON DATABASE "{database}" TO app_reader WITH GRANT OPTION;
REVOKE TEMPORARY ON DATABASE "{database}" FROM PUBLIC;
CREATE SCHEMA app AUTHORIZATION app_owner; CREATE SCHEMA "odd, schema"; COMMENT ON SCHEMA app IS 'the app';
GRANT USAGE ON SCHEMA app TO app_reader; REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA app GRANT SELECT ON TABLES TO app_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE TYPE app.mood AS ENUM ('sad', 'ok'); ALTER TYPE app.mood ADD VALUE 'meh' BEFORE 'ok'; ALTER TYPE app.mood ADD VALUE 'it''s "x"';
CREATE TYPE app.pair AS (a int, b text COLLATE "C"); COMMENT ON TYPE app.pair IS 'two';
CREATE DOMAIN app.code AS varchar(8) DEFAULT 'x' NOT NULL CHECK (VALUE IN ('x', 'y', 'zz'));
CREATE DOMAIN app.posint AS int CONSTRAINT positive CHECK (VALUE > 0);
CREATE TYPE app.floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE COLLATION app.german (provider = icu, locale = 'de-u-co-phonebk', deterministic = false);
CREATE SEQUENCE app.down AS int INCREMENT -3 MINVALUE -100 MAXVALUE -1 CYCLE CACHE 5; SELECT nextval('app.down'), nextval('app.down');
CREATE SEQUENCE app.untouched START 42; CREATE SEQUENCE app.placed; SELECT setval('app.placed', 77, false);
CREATE TABLE app.kinds (
  id int GENERATED BY DEFAULT AS IDENTITY (START 10 INCREMENT 5) PRIMARY KEY, s smallserial, big bigint, n numeric, f4 real, f8 double precision,
  m money, t text, vc varchar(20) DEFAULT 'd'::varchar CHECK (vc IN ('d', 'e', 'it''s')), c char(5), ch "char", nm name, b bytea, ok boolean,
  d date, ti time, tz timetz, ts timestamp, tstz timestamptz DEFAULT now(), iv interval, u uuid, j json, jb jsonb, x xml, ip inet, mac macaddr,
  bits bit(5), vb bit varying, pt point, po polygon, tv tsvector, arr int[][], ta text[], mo app.mood, pr app.pair, co app.code, pos app.posint,
  r int4range, mr nummultirange, fr app.floatrange, h hstore, ci citext, o oid, rc regclass, g text GENERATED ALWAYS AS (upper(t)) STORED,
  ge text COLLATE app.german, dropped int
);
ALTER TABLE app.kinds DROP COLUMN dropped; ALTER TABLE app.kinds ADD COLUMN added int NOT NULL DEFAULT 7;
ALTER TABLE app.kinds ALTER t SET STORAGE EXTERNAL, ALTER t SET STATISTICS 500, ALTER b SET COMPRESSION pglz, ALTER f8 SET (n_distinct = -0.5);
ALTER TABLE app.kinds SET (fillfactor = 70, autovacuum_enabled = false, toast.autovacuum_enabled = false);
COMMENT ON COLUMN app.kinds.t IS 'a text'; COMMENT ON CONSTRAINT kinds_vc_check ON app.kinds IS 'few';
INSERT INTO app.kinds (big, n, f4, f8, m, t, vc, c, ch, nm, b, ok, d, ti, tz, ts, tstz, iv, u, j, jb, x, ip, mac, bits, vb, pt, po, tv, arr, ta, mo, pr, co, pos, r, mr, fr, h, ci, o, rc, ge)
VALUES (9223372036854775807, 'NaN', '-0', 'Infinity', '1234.56', 'tab	nl
back\slash “😀”', 'e', 'ab', 'z', 'nm', '\x00ff5c', true, '0044-03-15 BC', '24:00', '12:00+05:30', '-infinity', '2020-02-29 12:00:00.123456+02', '1 year -2 days 03:04:05.6',
  '00000000-0000-0000-0000-000000000001', '{{"a" :  1, "a": 2}}', '{{"a": [1, null, {{"b": "ü"}}]}}', '<a b="c">d</a>', '10.0.0.1/8', '08:00:2b:01:02:03', B'10101', B'1', '(1,2)', '((0,0),(1,1),(1,0))',
  'a:1A fat:2', '{{{{1,2}},{{3,NULL}}}}', ARRAY['NULL', NULL, '', '"'], 'meh', ROW(1, 'x,"y"'), 'zz', 1, '[1,10)', '{{[1.5,2),(3,)}}', '[0.5,1.5]', 'a=>1, b=>NULL', 'CaSe', 4294967295, 'app.kinds', 'ä');
INSERT INTO app.kinds (n, f8, t, c) VALUES ('1.00', 'NaN', '', 'a    '), ('1.0', 0.1, NULL, NULL), (1e100, 1e-300, repeat('toast', 300000), '');
CREATE TABLE app.nothing (); INSERT INTO app.nothing DEFAULT VALUES; INSERT INTO app.nothing DEFAULT VALUES; CREATE TABLE app.empty (a int);
CREATE TABLE app.twice (a int, b text); INSERT INTO app.twice SELECT 1, 'same' FROM generate_series(1, 10);
CREATE UNLOGGED TABLE app.loose (a int); INSERT INTO app.loose VALUES (1);
CREATE TABLE app.typed OF app.pair (PRIMARY KEY (a)); INSERT INTO app.typed VALUES (1, 'one');
CREATE TABLE "odd, schema"."we""ird
table 😀" ("a b" int, "T" text, t int); INSERT INTO "odd, schema"."we""ird
table 😀" VALUES (1, 'x', 2); CREATE INDEX "ix ""q""
" ON "odd, schema"."we""ird
table 😀" ("a b"); COMMENT ON TABLE "odd, schema"."we""ird
table 😀" IS 'line
two';
CREATE TABLE app.parted (junk int, k int, at date NOT NULL, v text, PRIMARY KEY (k, at)) PARTITION BY RANGE (at);
ALTER TABLE app.parted DROP COLUMN junk;
CREATE TABLE app.parted_a PARTITION OF app.parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE app.parted_b (v text, at date NOT NULL, k int NOT NULL); ALTER TABLE app.parted ATTACH PARTITION app.parted_b FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE app.parted_c PARTITION OF app.parted FOR VALUES FROM ('2022-01-01') TO ('2023-01-01') PARTITION BY HASH (k);
CREATE TABLE app.parted_c0 PARTITION OF app.parted_c FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE app.parted_c1 PARTITION OF app.parted_c FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE app.parted_rest PARTITION OF app.parted DEFAULT;
INSERT INTO app.parted (k, at, v) SELECT i, date '2020-06-01' + i * 30, 'v' || i FROM generate_series(1, 50) i;
CREATE INDEX parted_v ON app.parted (v); CREATE INDEX parted_lower ON app.parted (lower(v)) WHERE v IN ('a', 'b');
CREATE TABLE app.refers (k int, at date, kind int REFERENCES app.kinds ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
  FOREIGN KEY (k, at) REFERENCES app.parted ON UPDATE CASCADE); INSERT INTO app.refers SELECT k, at, 10 FROM app.parted LIMIT 5;
CREATE TABLE app.parent (a int DEFAULT 1, b text CHECK (b <> '')); CREATE TABLE app.child (c int) INHERITS (app.parent);
CREATE TABLE app.turned (extra int, b text CHECK (b <> ''), a int); ALTER TABLE app.turned ADD CONSTRAINT parent_b_check CHECK (b <> ''); ALTER TABLE app.turned INHERIT app.parent;
INSERT INTO app.parent VALUES (1, 'p'); INSERT INTO app.child VALUES (2, 'c', 3); INSERT INTO app.turned VALUES (9, 't', 4);
CREATE TABLE app.checked (a int, b int, during tsrange, UNIQUE NULLS NOT DISTINCT (a, b), EXCLUDE USING gist (a WITH =, during WITH &&));
INSERT INTO app.checked VALUES (1, NULL, '[2020-01-01,2020-02-01)'), (2, 2, NULL);
ALTER TABLE app.checked ADD CONSTRAINT later CHECK (a > 0) NOT VALID; ALTER TABLE app.checked ADD CONSTRAINT either CHECK (a = 1 OR (b BETWEEN 1 AND 5 AND a IS NOT NULL));
CREATE INDEX checked_incl ON app.checked (b DESC NULLS LAST) INCLUDE (a) WITH (fillfactor = 50); CREATE UNIQUE INDEX checked_expr ON app.checked ((a + coalesce(b, 0)));
CREATE INDEX kinds_trgm ON app.kinds USING gin (t gin_trgm_ops); CREATE INDEX kinds_brin ON app.kinds USING brin (id) WITH (pages_per_range = 16); CREATE INDEX kinds_jb ON app.kinds USING gin (jb jsonb_path_ops);
CREATE UNIQUE INDEX twice_none ON app.typed (b); ALTER TABLE app.typed CLUSTER ON typed_pkey; ALTER TABLE app.kinds REPLICA IDENTITY FULL;
ALTER TABLE app.typed ALTER b SET NOT NULL; ALTER TABLE app.typed REPLICA IDENTITY USING INDEX twice_none;
CREATE STATISTICS app.related (dependencies, ndistinct, mcv) ON a, b FROM app.twice; ALTER STATISTICS app.related SET STATISTICS 300; CREATE STATISTICS app.expr ON (a % 2), b FROM app.twice;
CREATE VIEW app.seen WITH (security_barrier, check_option = local) AS SELECT id, t, vc FROM app.kinds WHERE vc IN ('d', 'e') AND id > 0;
CREATE VIEW app.wide AS SELECT k.*, row_number() OVER (PARTITION BY ok ORDER BY id) AS nr FROM app.kinds k LEFT JOIN app.twice USING (t, b) WHERE false;
"#
    )
    .replace("LEFT JOIN app.twice USING (t, b) WHERE false", "WHERE k.mo = ANY (ARRAY['sad', 'ok']::app.mood[])")
        + r#"
CREATE VIEW app.counted AS WITH RECURSIVE c (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < 5) SELECT n FROM c;
ALTER VIEW app.seen ALTER COLUMN t SET DEFAULT 'seen';
CREATE MATERIALIZED VIEW app.full_mv AS SELECT a, count(*) AS n FROM app.twice GROUP BY a; CREATE UNIQUE INDEX full_mv_a ON app.full_mv (a);
CREATE MATERIALIZED VIEW app.empty_mv AS SELECT * FROM app.twice WITH NO DATA;
CREATE FUNCTION app.helper(a int, b text DEFAULT 'x', VARIADIC c int[] DEFAULT '{}') RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 5 AS $$SELECT $1::text || $2$$;
CREATE FUNCTION app.atomic(a int) RETURNS TABLE (x int, y text) LANGUAGE sql BEGIN ATOMIC SELECT a + 1, 'y'; SELECT id, t FROM app.kinds WHERE vc IN ('d', 'e'); END;
CREATE FUNCTION app.definer() RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = app, pg_temp AS $x$BEGIN RETURN 1; END$x$;
CREATE PROCEDURE app.proc(INOUT a int) LANGUAGE plpgsql AS $$BEGIN a := a + 1; END$$; REVOKE EXECUTE ON FUNCTION app.definer() FROM PUBLIC; GRANT EXECUTE ON FUNCTION app.definer() TO app_reader;
CREATE AGGREGATE app.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', COMBINEFUNC = int4pl, PARALLEL = SAFE);
CREATE FUNCTION app.pair_eq(app.pair, app.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT ($1).a = ($2).a$$;
CREATE OPERATOR app.=== (LEFTARG = app.pair, RIGHTARG = app.pair, FUNCTION = app.pair_eq, COMMUTATOR = OPERATOR(app.===));
CREATE FUNCTION app.cmp(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS $$SELECT $2 - $1$$;
CREATE OPERATOR CLASS app.backwards FOR TYPE int USING btree AS OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 app.cmp(int, int);
CREATE FUNCTION app.to_pair(int) RETURNS app.pair LANGUAGE sql IMMUTABLE AS $$SELECT ROW($1, '')::app.pair$$; CREATE CAST (int AS app.pair) WITH FUNCTION app.to_pair(int) AS ASSIGNMENT;
CREATE TEXT SEARCH DICTIONARY app.dict (TEMPLATE = simple, stopwords = english); CREATE TEXT SEARCH CONFIGURATION app.conf (COPY = simple); ALTER TEXT SEARCH CONFIGURATION app.conf ALTER MAPPING FOR asciiword WITH app.dict, simple;
CREATE CONVERSION app.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE FUNCTION app.trig() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
CREATE TRIGGER t_off BEFORE INSERT ON app.twice FOR EACH ROW EXECUTE FUNCTION app.trig(); ALTER TABLE app.twice DISABLE TRIGGER t_off;
CREATE TRIGGER t_always AFTER UPDATE OF a ON app.twice FOR EACH ROW WHEN (OLD.a IS DISTINCT FROM NEW.a) EXECUTE FUNCTION app.trig('x', 'y'); ALTER TABLE app.twice ENABLE ALWAYS TRIGGER t_always;
CREATE TRIGGER t_replica AFTER DELETE ON app.twice REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION app.trig(); ALTER TABLE app.twice ENABLE REPLICA TRIGGER t_replica;
CREATE CONSTRAINT TRIGGER t_late AFTER INSERT ON app.twice DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.trig();
CREATE TRIGGER t_parted BEFORE UPDATE ON app.parted FOR EACH ROW EXECUTE FUNCTION app.trig(); ALTER TABLE app.parted_b DISABLE TRIGGER t_parted;
CREATE FUNCTION app.instead() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$; CREATE TRIGGER t_instead INSTEAD OF DELETE ON app.seen FOR EACH ROW EXECUTE FUNCTION app.instead();
CREATE RULE r_nothing AS ON DELETE TO app.loose DO INSTEAD NOTHING; CREATE RULE r_also AS ON UPDATE TO app.empty WHERE NEW.a IN (1, 2) DO ALSO INSERT INTO app.twice VALUES (NEW.a, 'r'); ALTER TABLE app.loose DISABLE RULE r_nothing;
CREATE FUNCTION app.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$; CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION app.on_ddl(); ALTER EVENT TRIGGER watch ENABLE ALWAYS;
ALTER TABLE app.checked ENABLE ROW LEVEL SECURITY; ALTER TABLE app.checked FORCE ROW LEVEL SECURITY; CREATE POLICY mine ON app.checked AS RESTRICTIVE FOR SELECT TO app_reader, app_owner USING (a IN (1, 2) AND current_user = 'x'); CREATE POLICY ins ON app.checked FOR INSERT WITH CHECK (b > 0);
CREATE PUBLICATION few FOR TABLE app.twice (a, b) WHERE (a > 1), app.kinds WITH (publish = 'insert, update'); CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA "odd, schema"; CREATE PUBLICATION everything FOR ALL TABLES;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '192.0.2.1', dbname 'x'); CREATE USER MAPPING FOR app_reader SERVER far OPTIONS (user 'u', password 'canary-password');
CREATE FOREIGN TABLE app.remote (a int OPTIONS (column_name 'b') NOT NULL, t text) SERVER far OPTIONS (table_name 'y'); GRANT USAGE ON FOREIGN SERVER far TO app_reader;
SELECT lo_from_bytea(70001, '\x0102ff'); SELECT lo_from_bytea(70002, ''); SELECT lo_from_bytea(3000000000, convert_to(repeat('large', 500000), 'UTF8'));
SELECT lo_create(70003); SELECT lo_put(70003, 5000, '\xabcd'); COMMENT ON LARGE OBJECT 70001 IS 'three'; GRANT SELECT ON LARGE OBJECT 70001 TO app_reader; ALTER LARGE OBJECT 70002 OWNER TO app_owner;
GRANT SELECT (a), UPDATE (b) ON app.twice TO app_reader WITH GRANT OPTION; GRANT SELECT, INSERT ON app.kinds TO PUBLIC; REVOKE ALL ON app.empty FROM app_owner; GRANT USAGE ON SEQUENCE app.placed TO app_reader;
REVOKE USAGE ON TYPE app.mood FROM PUBLIC; ALTER TABLE app.twice OWNER TO app_owner; REVOKE DELETE ON app.twice FROM app_owner; ALTER FUNCTION app.helper OWNER TO app_owner; ALTER TYPE app.mood OWNER TO app_owner;
COMMENT ON INDEX app.kinds_trgm IS 'i'; COMMENT ON TRIGGER t_off ON app.twice IS 't'; COMMENT ON FUNCTION app.helper IS 'f'; COMMENT ON POLICY mine ON app.checked IS 'p'; COMMENT ON PUBLICATION few IS 'pub'; COMMENT ON SERVER far IS 's';
COMMENT ON RULE r_nothing ON app.loose IS 'r'; COMMENT ON DOMAIN app.code IS 'd'; COMMENT ON CONSTRAINT positive ON DOMAIN app.posint IS 'dc'; COMMENT ON STATISTICS app.related IS 'st'; COMMENT ON OPERATOR app.=== (app.pair, app.pair) IS 'op';
COMMENT ON EVENT TRIGGER watch IS 'e'; COMMENT ON CAST (int AS app.pair) IS 'k'; COMMENT ON VIEW app.seen IS 'v'; COMMENT ON SEQUENCE app.down IS 'q'; COMMENT ON COLLATION app.german IS 'g'; COMMENT ON MATERIALIZED VIEW app.full_mv IS 'm';
"#
}

/// Expressions of many shapes, in every place where a server keeps one and deparses it.
pub const SHAPES: &str = r##"
CREATE SCHEMA s;
CREATE TABLE s.t (id int, vc varchar(20), c char(3), tx text, n numeric(10,2), b bigint, sm smallint, f float8, d date, ts timestamp, tz timestamptz, iv interval, jb jsonb, ar int[], ta text[], va varchar[], ok bool, deleted_at timestamptz, e name,
 d1 date DEFAULT ('now'::text)::date, d2 jsonb DEFAULT '{}', d3 int[] DEFAULT ARRAY[]::int[], d4 int DEFAULT -1, d5 interval DEFAULT '1 day', d6 numeric DEFAULT 1.50, d7 text DEFAULT 'a'||'b', d8 timestamptz(3) DEFAULT current_timestamp(3), d9 text DEFAULT current_user, d10 bigint DEFAULT 5, d11 varchar DEFAULT 'x'::text, d12 text[] DEFAULT '{a,b}', d13 bool DEFAULT true, d14 float8 DEFAULT 1, d15 smallint DEFAULT -32768, d16 bigint DEFAULT -9223372036854775808, d17 date DEFAULT CURRENT_DATE + 7, d18 timestamptz DEFAULT (now() AT TIME ZONE 'utc'), d19 uuid DEFAULT gen_random_uuid(), d20 char(3) DEFAULT 'ab', d21 varchar(5) DEFAULT 'x', d22 bit(3) DEFAULT B'101', d23 money DEFAULT 0, d24 text DEFAULT E'a\\b\n''', d25 time DEFAULT LOCALTIME,
 g1 numeric GENERATED ALWAYS AS (CASE WHEN n BETWEEN 1 AND 5 THEN n * 2 WHEN vc IN ('a','b') THEN 0 ELSE -n END) STORED,
 CONSTRAINT c1 CHECK (vc NOT IN ('a', 'b') AND (n > 0 OR n IS NULL) AND d BETWEEN '2000-01-01' AND '2100-01-01'),
 CONSTRAINT c2 CHECK (b IN (1,2,3) OR sm IN (1,2) OR f IN (1, 2.5)), CONSTRAINT c3 CHECK (c IN ('a','b') OR c = 'x'), CONSTRAINT c4 CHECK (e IN ('a','b')),
 CONSTRAINT c5 CHECK (vc ~ '^a' AND vc LIKE 'b%' AND vc NOT ILIKE '%c' AND vc SIMILAR TO 'x|y'), CONSTRAINT c6 CHECK (NOT (n NOT BETWEEN 1 AND 2) AND n BETWEEN SYMMETRIC 5 AND 1),
 CONSTRAINT c7 CHECK (vc = ANY ('{a,b}')), CONSTRAINT c8 CHECK (vc = ANY (ARRAY['a','b']) AND (ok IS NOT TRUE) AND (ok IS DISTINCT FROM false)), CONSTRAINT c9 CHECK (length(vc) > 1 AND char_length(trim(both ' ' from vc)) > 0 AND substring(vc from 1 for 2) <> 'zz' AND extract(year from d) > 1 AND position('a' in vc) >= 0 AND overlay(vc placing 'x' from 1) <> ''),
 CONSTRAINT c10 CHECK ((ok AND n > 1) OR (NOT ok AND n < 1) OR (ok IS NULL)), CONSTRAINT c11 CHECK (num_nonnulls(id, vc) = 1), CONSTRAINT c12 CHECK (vc::text IN ('q','r') OR lower(vc) IN ('s', 't')), CONSTRAINT c13 CHECK ((id, b) > (1, 2) AND ROW(id, b) IS NOT NULL), CONSTRAINT c14 CHECK (coalesce(vc, 'n') IN ('a', 'n')), CONSTRAINT c15 CHECK (id > 0 AND id < 100 AND id <> 50 AND id % 2 = 0), CONSTRAINT c16 CHECK (jb ? 'a' AND jb->>'b' IN ('x','y') AND (jb->'c')::int > 1 AND jb @> '{"a": 1}' AND jb @? '$.a[*] ? (@ > 1)'), CONSTRAINT c17 CHECK (ar[1] = 1 AND ar[1:2] = ARRAY[1,2] AND 1 = ALL (ar) AND ta && ARRAY['a','b'] AND va <@ ARRAY['a','b']::varchar[] AND array_length(ta, 1) = 2), CONSTRAINT c18 CHECK (iv > '1 day' AND iv < interval '2' month AND ts < timestamp '2020-01-01' AND tz AT TIME ZONE 'UTC' < now()), CONSTRAINT c19 CHECK (vc COLLATE "C" > 'a'), CONSTRAINT c20 CHECK (b = 5 AND b = -5 AND n = 1 AND n = -1.5 AND f = 1e10 AND f = 'NaN'), CONSTRAINT c21 CHECK (nullif(vc, 'x') IS NULL OR greatest(id, 1, 2) > 3 OR least(n, 1) < 2), CONSTRAINT c22 CHECK ((vc IN ('a','b') AND tx IN ('c','d')) IS TRUE));
CREATE INDEX i1 ON s.t (lower(vc)) WHERE deleted_at IS NULL AND vc IN ('a','b') AND n BETWEEN 1 AND 3; CREATE INDEX i2 ON s.t ((jb->>'x'), (n+1) DESC); CREATE INDEX i3 ON s.t (vc text_pattern_ops, tx COLLATE "C"); CREATE INDEX i4 ON s.t (date_trunc('day', ts)); CREATE INDEX i5 ON s.t ((vc || '-' || tx)) WHERE NOT ok; CREATE INDEX i6 ON s.t (id) WHERE (b <> ALL (ARRAY[1::bigint,2])) ; CREATE INDEX i7 ON s.t (((d + interval '1 day')::date)); 
CREATE VIEW s.v1 AS SELECT * FROM s.t; CREATE VIEW s.v2 AS SELECT t.id, count(*) AS n, count(*) FILTER (WHERE vc IN ('a','b')) AS m, sum(n) OVER (PARTITION BY vc ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM s.t GROUP BY t.id, n, vc HAVING count(*) > 1 AND max(n) BETWEEN 1 AND 2 AND true ORDER BY 1 DESC NULLS LAST LIMIT 5 OFFSET 1;
CREATE VIEW s.v3 AS WITH RECURSIVE r(a, b) AS (SELECT 1, 'x'::text UNION ALL SELECT a + 1, b || 'y' FROM r WHERE a < 3 AND b <> 'q' AND a IN (1,2)), m AS MATERIALIZED (SELECT 1 one) SELECT r.*, m.one FROM r CROSS JOIN m; CREATE VIEW s.v4 AS SELECT DISTINCT ON (vc) vc, tx FROM s.t a JOIN s.t b USING (id, vc, tx) LEFT JOIN LATERAL (SELECT max(c.n) FROM s.t c WHERE c.id = a.id AND c.n BETWEEN 1 AND 2 AND c.ok) q ON a.id > 1 AND (b.n > 1 AND b.n < 3) ORDER BY vc, tx;
CREATE VIEW s.v5 AS SELECT 1 UNION SELECT 2 EXCEPT SELECT 3 INTERSECT ALL SELECT 4; CREATE VIEW s.v6 AS VALUES (1, 'a'), (2, 'b'); CREATE VIEW s.v7 AS SELECT id, CASE vc WHEN 'a' THEN 1 WHEN 'b' THEN 2 END, CASE WHEN vc = 'a' AND tx = 'b' AND ok THEN 'x' ELSE 'y' END AS c2, EXISTS (SELECT 1 FROM s.t x WHERE x.id = t.id AND x.n > 1), (SELECT array_agg(id ORDER BY id) FROM s.t) AS a1, ARRAY(SELECT id FROM s.t) AS a2, id = ANY (SELECT b FROM s.t) AS a3, vc IN (SELECT tx FROM s.t) AS a4, (t.*)::text AS whole, t AS rec FROM s.t;
CREATE VIEW s.v8 AS SELECT vc, n, GROUPING(vc) FROM s.t GROUP BY GROUPING SETS ((vc, n), (vc), ()), CUBE (ok) ; CREATE VIEW s.v9 AS SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY n), string_agg(DISTINCT vc, ',' ORDER BY vc), mode() WITHIN GROUP (ORDER BY vc) FROM s.t TABLESAMPLE system (10) REPEATABLE (1) WHERE id > 1; CREATE VIEW s.v10 AS SELECT * FROM ROWS FROM (generate_series(1,2), unnest(ARRAY['a','b'])) WITH ORDINALITY AS z(a, b, o), json_to_recordset('[]') AS y(q int, r text);
CREATE VIEW s.v11 AS SELECT now() a, current_date b, localtime(2) c, session_user d, 'a'::char(3) e, 1.0::float4 f, '1'::"char" g, INTERVAL '1-2' YEAR TO MONTH h, DATE '2020-01-01' i, TIME '12:00' j, null k, true l, 'x' AS "Upper", x'ff'::int m, B'1' n, -1 o, +1 p, 1::bigint q, '-5'::int r, NOT true t, 'a' || 1 u, 5 / 2.0 v, 2 ^ 3 w, @ -1 x FROM (SELECT 1) q WHERE false AND 'x' LIKE 'y' ESCAPE 'z'; 
CREATE FUNCTION s.f1(a int, b text) RETURNS SETOF s.t LANGUAGE sql STABLE BEGIN ATOMIC SELECT * FROM s.t WHERE id = a AND vc IN ('a', 'b') AND n BETWEEN 1 AND 5 AND ok; END;
CREATE FUNCTION s.f2(a int) RETURNS int LANGUAGE sql RETURN a + 1;
CREATE PROCEDURE s.p1(a int) LANGUAGE sql BEGIN ATOMIC INSERT INTO s.t (id, vc) VALUES (a, 'x') ON CONFLICT DO NOTHING; UPDATE s.t SET n = 1, vc = DEFAULT WHERE id IN (1, 2) RETURNING 1; DELETE FROM s.t USING s.t x WHERE x.id = t.id; END;
CREATE FUNCTION s.f3() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT current_date; SELECT 'x'; END;
CREATE RULE r1 AS ON INSERT TO s.v6 WHERE new.column1 IN (1, 2) AND new.column1 BETWEEN 0 AND 4 DO INSTEAD INSERT INTO s.t (id, vc) VALUES (new.column1, new.column2); CREATE RULE r0 AS ON INSERT TO s.v6 DO INSTEAD NOTHING;
CREATE FUNCTION s.tr() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER g1 BEFORE UPDATE OF vc, n ON s.t FOR EACH ROW WHEN (old.vc IN ('a', 'b') AND new.n BETWEEN 1 AND 2 AND new.tx IS DISTINCT FROM old.tx) EXECUTE FUNCTION s.tr('a', 'it''s');
ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p1 ON s.t USING (vc IN ('a', 'b') AND n BETWEEN 1 AND 2 AND id IN (SELECT b FROM s.t)) WITH CHECK (current_setting('a.b', true) = vc AND (ok AND (id > 1 AND id < 5)));
CREATE STATISTICS s.st ON (lower(vc)), (n + 1) FROM s.t; CREATE TABLE s.pp (a int, b text) PARTITION BY RANGE (abs(a), lower(b)); CREATE TABLE s.pp1 PARTITION OF s.pp FOR VALUES FROM (1, MINVALUE) TO (5, 'x'); CREATE TABLE s.pl (a varchar) PARTITION BY LIST (a); CREATE TABLE s.pl1 PARTITION OF s.pl FOR VALUES IN ('a', NULL, 'it''s'); CREATE TABLE s.pd (a timestamptz) PARTITION BY RANGE (a); CREATE TABLE s.pd1 PARTITION OF s.pd FOR VALUES FROM ('2020-01-01 00:00+02') TO (MAXVALUE);
CREATE DOMAIN s.dd AS varchar DEFAULT 'a' CHECK (VALUE IN ('a', 'b') AND length(VALUE) BETWEEN 1 AND 2 AND VALUE <> 'q');
"##;

/// How long a restored server may take to recover.
const RECOVERY: std::time::Duration = std::time::Duration::from_secs(120);

/// A restored data directory whose server runs; stopped when dropped.
#[derive(Debug)]
pub struct Beside<'a> {
    server: &'a Server,
    root: PathBuf,
}

impl Beside<'_> {
    fn data(&self) -> String {
        self.root.join("data").display().to_string()
    }

    fn start(&self) -> Result<(), ServerError> {
        let log = self.root.join("server.log").display().to_string();
        let options = format!("-k {} -c listen_addresses= -c fsync=off", self.root.display());
        let words = ["-D", &self.data(), "-o", &options, "-l", &log, "-w", "-s", "start"];
        self.server.run("pg_ctl", &words, "").map(drop).map_err(|error| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            ServerError::Failed { program: "pg_ctl".to_owned(), message: format!("{error}\n{said}") }
        })
    }

    /// What [`Server::fingerprint`] says, of this one.
    pub fn fingerprint(&self, database: &str) -> Result<String, ServerError> {
        self.server.fingerprint_at(&self.root.display().to_string(), database)
    }

    /// Runs a script in one of its databases.
    pub fn sql(&self, database: &str, script: &str) -> Result<String, ServerError> {
        sql_at(&self.root, database, script)
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        // One that has not started has nothing to stop; what is left is told by the next test that needs its place.
        self.server.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-s", "stop"], "").ok();
    }
}

/// Runs a script in a database of the server that listens in `host`, as its superuser.
pub fn sql_at(host: &Path, database: &str, script: &str) -> Result<String, ServerError> {
    let mut command = Command::new(programs()?.join("psql"));
    command
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-h"])
        .arg(host)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(user) = server_user()? {
        command.uid(user.uid).gid(user.gid);
    }
    let failed = |source| ServerError::Run { program: "psql".to_owned(), source };
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(ServerError::Failed { program: "psql".to_owned(), message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A position in the log, from how servers write it.
///
/// # Panics
///
/// Where it is none.
#[must_use]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]
pub fn position(text: &str) -> u64 {
    let (high, low) = text.trim().split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}
