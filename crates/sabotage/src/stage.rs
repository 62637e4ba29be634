//! The estate of a seed, backed up once, and put back into that state before every trial.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use seaworthy_testkit::estate::{self, Dice};
use seaworthy_testkit::postgres::{Server, shop};
use seaworthy_testkit::product::{self, Product, Ran};
use serde_json::Value;

use crate::case::{Kind, Said, Step};
use crate::forge::{Files, copy_of, directories_of, files_of, opened};
use crate::{Fault, Outcome};

/// What a counting checker compares: rows of a table, or the number and size of files.
pub(crate) type Counts = BTreeMap<String, u64>;

/// What the shop has beside a shop: every thing that a mutation needs.
const EXTRAS: &str = "CREATE EXTENSION hstore; CREATE ROLE reader; ALTER ROLE reader SET lock_timeout = '3s';
    CREATE TABLE plain AS SELECT i AS a, 'row ' || i AS b FROM generate_series(1, 20) i;
    CREATE TABLE events (a int, b text); INSERT INTO events VALUES (1, 'one'), (1, 'one'), (2, 'two');
    CREATE TABLE twin_a (a int, b text); CREATE TABLE twin_b (a int, b text);
    INSERT INTO twin_a VALUES (1, 'x'); INSERT INTO twin_b VALUES (2, 'x');
    CREATE TABLE kept (j json, f float8, at timestamptz, note text, n numeric, tail text);
    INSERT INTO kept VALUES ('{\"a\": 1}', 0, '2020-01-01', NULL, 1.00, 'x');
    ALTER TABLE kept ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON kept USING (n > 0); GRANT SELECT ON kept TO reader;
    CREATE STATISTICS related ON a, b FROM events; CREATE TABLE published (a int PRIMARY KEY); CREATE PUBLICATION pub FOR TABLE published;
    CREATE TABLE guarded (tenant int, secret text); INSERT INTO guarded SELECT i % 10, 'secret ' || i FROM generate_series(1, 100) i;
    ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE POLICY tenants ON guarded TO reader USING (tenant = 3); GRANT SELECT ON guarded TO reader;
    COMMENT ON TABLE customers IS 'who buys'; UPDATE orders SET placed = now() WHERE id = 1;
    SELECT lo_from_bytea(70001, decode(repeat('5ea0', 4000), 'hex'));";

/// Puts what belongs to the whole server back.
const GLOBALS: &str =
    "ALTER ROLE reader NOBYPASSRLS; ALTER ROLE reader RESET ALL; ALTER ROLE reader SET lock_timeout = '3s';";

/// An estate, its product, and the one honest backup of it.
pub struct Stage {
    /// The kind of its source.
    pub kind: Kind,
    /// The seed of its content.
    pub seed: u64,
    /// The product.
    pub product: Product,
    pub(crate) server: Option<Server>,
    pub(crate) original: Value,
    /// The files of the original copy, but of a tree: that lies in `source`.
    pub(crate) whole: Files,
    /// The directories of the original copy of a cluster, of which some are empty.
    pub(crate) directories: Vec<Vec<u8>>,
    /// Where tables and indexes lie in the original copy of a cluster.
    pub(crate) relations: BTreeMap<String, String>,
    pub(crate) counts: Counts,
    pub(crate) restic: PathBuf,
    /// The database file, or the root of the tree.
    pub(crate) source: PathBuf,
    /// Nobody may ever connect to it.
    pub(crate) listener: TcpListener,
    began: SystemTime,
}

impl Stage {
    /// Makes the estate of a seed below `place` and backs it up; the drill of that copy must be a proof.
    pub fn new(place: &Path, program: &Path, kind: Kind, seed: u64) -> Outcome<Self> {
        let product = Product::new_in(place, program, "")?;
        let restic =
            seaworthy_testkit::components::restics()?.first().cloned().ok_or("no restic is installed")?;
        let server = match kind {
            Kind::Postgres | Kind::Cluster | Kind::Log => {
                Some(Server::start_in(place, &["max_wal_size=64MB"])?)
            }
            Kind::Sqlite | Kind::Files => None,
        };
        let source = product.path().join(match kind {
            Kind::Postgres | Kind::Cluster | Kind::Log => "unused",
            Kind::Sqlite => "live.sqlite",
            Kind::Files => "tree",
        });
        let mut stage = Self {
            kind,
            seed,
            product,
            server,
            original: Value::Null,
            whole: Files::new(),
            directories: Vec::new(),
            relations: BTreeMap::new(),
            counts: Counts::new(),
            restic,
            source,
            listener: TcpListener::bind("127.0.0.1:0")?,
            began: SystemTime::now() - Duration::from_secs(3_600),
        };
        stage.listener.set_nonblocking(true)?;
        fs::create_dir(stage.outside())?;
        fs::set_permissions(stage.outside(), fs::Permissions::from_mode(0o777))?;
        stage.make_source()?;
        stage.configure("")?;
        if stage.is_continuous() {
            stage.first_copy()?;
        }
        stage.original = stage.product.backup("it")?;
        if kind == Kind::Log {
            crate::journal::receive(&stage)?;
        } else if kind != Kind::Files {
            stage.whole = files_of(&opened(&stage.product)?, &copy_of(&stage.original)?)?;
        }
        if kind == Kind::Cluster {
            stage.directories = directories_of(&opened(&stage.product)?, &copy_of(&stage.original)?)?;
            let list = "SELECT c.relname, pg_relation_filepath(c.oid) FROM pg_class c \
                        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i')";
            for line in stage.server()?.sql("shop", list)?.lines() {
                let (name, path) = line.split_once('|').ok_or("a relation has no path")?;
                stage.relations.insert(name.to_owned(), path.to_owned());
            }
        }
        stage.counts = stage.count_source()?;
        for (name, place) in stage.kept() {
            copy_all(&place, &stage.pristine().join(name))?;
        }
        if kind == Kind::Log {
            let said = stage.ask(&[Step::of(&["drill", "it", "--until", "latest"])])?;
            if said.word != "pass" {
                return Err(format!("the honest log of seed {seed} is not proven: {said:#?}").into());
            }
        } else {
            let drill = stage.product.drill("it", 0)?;
            if !is_equal(&drill) {
                return Err(format!("the honest copy of seed {seed} is not proven: {drill:#}").into());
            }
        }
        stage.reset()?;
        Ok(stage)
    }

    /// Whether copies of a cluster are continuous: of every other seed, and where the log is what it is about.
    fn is_continuous(&self) -> bool {
        self.kind == Kind::Log || self.kind == Kind::Cluster && self.seed % 2 == 1
    }

    /// A base backup, and files of the log behind it: the original is then made of both.
    fn first_copy(&self) -> Outcome {
        let server = self.server()?;
        // What a page of the log brings back is healed and no damage: nothing but these statements may write meanwhile.
        server.sql("postgres", "ALTER SYSTEM SET autovacuum = off")?;
        server.sql("postgres", "SELECT pg_reload_conf()")?;
        for database in ["shop", "postgres"] {
            server.sql(database, "VACUUM FREEZE")?;
        }
        self.product.backup("it")?;
        for _ in 0..3 {
            server.sql("shop", "INSERT INTO events SELECT 7, 'between' FROM generate_series(1, 3)")?;
            server.sql("shop", "SELECT pg_switch_wal()")?;
        }
        server.sql("shop", "INSERT INTO events VALUES (8, 'behind')")?;
        Ok(())
    }

    pub(crate) fn server(&self) -> Outcome<&Server> {
        self.server.as_ref().ok_or_else(|| "this estate has no server".into())
    }

    /// Writes the configuration with `more` in the table of the source.
    pub(crate) fn configure(&self, more: &str) -> Outcome {
        let source = match (self.kind, &self.server) {
            (Kind::Postgres | Kind::Cluster | Kind::Log, Some(server)) => {
                let mode = match self.kind {
                    Kind::Postgres => "",
                    _ if self.is_continuous() => "mode = \"continuous\"\n",
                    _ => "mode = \"physical\"\n",
                };
                let tools = if more.contains("bin_dir") {
                    String::new()
                } else {
                    format!("bin_dir = \"{}\"\n", server.programs().display())
                };
                format!(
                    "[services.it.sources.it]\nkind = \"postgres\"\nhost = \"{}\"\nport = {}\nuser = \"postgres\"\ndatabase = \"shop\"\n{mode}{tools}",
                    server.host(),
                    server.port()
                )
            }
            (Kind::Postgres | Kind::Cluster | Kind::Log, None) => {
                return Err("this estate has no server".into());
            }
            (Kind::Sqlite, _) => {
                format!("[services.it.sources.it]\nkind = \"sqlite\"\npath = \"{}\"\n", self.source.display())
            }
            (Kind::Files, _) => {
                format!(
                    "[services.it.sources.it]\nkind = \"files\"\npaths = [\"{}\"]\n",
                    self.source.display()
                )
            }
        };
        Ok(self.product.configure(&format!("{source}{more}\n"))?)
    }

    /// The same source under another service's name.
    pub(crate) fn rename(&self, service: &str) -> Outcome {
        let path = self.product.path().join("seaworthy.toml");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, text.replace("[services.it.", &format!("[services.{service}.")))?;
        Ok(())
    }

    pub(crate) fn pristine(&self) -> PathBuf {
        self.product.path().join("pristine")
    }

    /// A directory outside of every sandbox that everybody may write to, and nobody should.
    pub(crate) fn outside(&self) -> PathBuf {
        self.product.path().join("outside")
    }

    /// The port of this host to which nobody should connect.
    pub(crate) fn port(&self) -> Outcome<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// What is put back before every trial.
    fn kept(&self) -> Vec<(&'static str, PathBuf)> {
        let mut kept = vec![("repository", self.product.repository()), ("state", self.product.state())];
        if self.kind == Kind::Sqlite {
            kept.push(("source", self.source.clone()));
        }
        kept
    }

    /// Puts everything back.
    pub fn reset(&self) -> Outcome {
        for (name, place) in self.kept() {
            remove(&place)?;
            copy_all(&self.pristine().join(name), &place)?;
        }
        for suffix in ["-wal", "-shm", "-journal"] {
            let mut beside = self.source.clone().into_os_string();
            beside.push(suffix);
            remove(Path::new(&beside))?;
        }
        remove(&self.product.path().join("scrap"))?;
        fs::create_dir(self.product.path().join("scrap"))?;
        match self.kind {
            Kind::Postgres => self.anew()?,
            Kind::Cluster => {
                let server = self.server()?;
                server.sql("postgres", "ALTER SYSTEM RESET ALL")?;
                server.sql("postgres", "SELECT pg_reload_conf()")?;
                self.anew()?;
            }
            Kind::Files => self.make_tree()?,
            // What a trial makes wrong lies in the repository.
            Kind::Sqlite | Kind::Log => {}
        }
        let password = self.product.path().join("password");
        fs::write(&password, product::PASSWORD)?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
        self.configure("")
    }

    /// A directory for what a trial needs beside.
    pub(crate) fn scrap(&self) -> PathBuf {
        self.product.path().join("scrap")
    }

    /// The database of the shop as it was when it was backed up.
    pub(crate) fn anew(&self) -> Outcome {
        let server = self.server()?;
        server.sql("postgres", GLOBALS)?;
        server.sql("postgres", "DROP DATABASE IF EXISTS shop WITH (FORCE)")?;
        server.create("shop", &["-T", "pristine"])?;
        Ok(())
    }

    fn make_source(&self) -> Outcome {
        match self.kind {
            Kind::Postgres | Kind::Cluster | Kind::Log => {
                let server = self.server()?;
                server.create("pristine", &[])?;
                let orders = u32::try_from(60 + self.seed * 13 % 140)?;
                server.sql("pristine", &shop(orders))?;
                server.sql("pristine", EXTRAS)?;
                // Content of this seed's own.
                let random = format!(
                    "SELECT setseed({}); CREATE TABLE cargo (id int PRIMARY KEY, word text, weight float8, loaded date, seal bytea);
                     INSERT INTO cargo SELECT i, md5(random()::text), random() * 1e6, date '2020-01-01' + (random() * 2000)::int, \
                     decode(md5(random()::text), 'hex') FROM generate_series(1, 200) i;",
                    (self.seed % 1000) as f64 / 1000.0
                );
                server.sql("pristine", &random)?;
                self.anew()
            }
            Kind::Sqlite => {
                use estate::sqlite::{Journal, shop};
                let journal = if self.seed.is_multiple_of(2) { Journal::Rollback } else { Journal::Wal };
                shop(&self.source, journal, 300 + self.seed % 300, self.seed)?;
                let connection = rusqlite::Connection::open(&self.source)?;
                connection.execute_batch(
                    "CREATE VIRTUAL TABLE letters USING fts5(body);
                     INSERT INTO letters SELECT 'dear customer number ' || id FROM customer;
                     PRAGMA wal_checkpoint(TRUNCATE);",
                )?;
                Ok(())
            }
            Kind::Files => self.make_tree(),
        }
    }

    fn make_tree(&self) -> Outcome {
        let root = &self.source;
        remove(root)?;
        fs::create_dir_all(root.join("inner/deep"))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        let mut dice = Dice::new(self.seed);
        for name in ["ledger.csv", "inner/notes.txt", "inner/deep/log", "empty", "other"] {
            let size = if name == "empty" { 0 } else { 2_000 + dice.below(30_000) as usize };
            let bytes = estate::bytes(estate::Texture::Text, size, &mut dice);
            fs::write(root.join(name), bytes)?;
            xattr::set(root.join(name), "user.origin", b"test")?;
        }
        let mut noise = vec![0; 100_000 + dice.below(400_000) as usize];
        dice.fill(&mut noise);
        fs::write(root.join("noise.bin"), noise)?;
        let mut sparse = fs::File::create(root.join("disk.img"))?;
        std::io::Write::write_all(&mut sparse, b"boot")?;
        sparse.set_len(300_000)?;
        std::os::unix::fs::symlink("ledger.csv", root.join("current"))?;
        fs::hard_link(root.join("other"), root.join("inner/twin"))?;
        let mut open = vec![root.clone()];
        let mut found = Vec::new();
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                } else if entry.file_type()?.is_file() {
                    found.push(entry.path());
                }
            }
            found.push(directory);
        }
        found.sort();
        // Directories last, and inner ones first.
        for path in found.iter().rev() {
            fs::File::open(path)?.set_modified(self.began)?;
        }
        // A link's own time cannot be set with std.
        let then = rustix_time(self.began)?;
        touch_link(&root.join("current"), &then)?;
        fs::File::open(root)?.set_modified(self.began)?;
        Ok(())
    }

    /// What a person would count in the source.
    fn count_source(&self) -> Outcome<Counts> {
        match self.kind {
            Kind::Postgres | Kind::Cluster | Kind::Log => count_postgres(self.server()?, "shop"),
            Kind::Sqlite => count_sqlite(&self.source),
            Kind::Files => count_tree(&self.source),
        }
    }

    /// Runs the steps until one does not end well, and reads what was said.
    pub fn ask(&self, steps: &[Step]) -> Outcome<Said> {
        let began = Instant::now();
        let mut said = None;
        for step in steps {
            let mut words = vec!["--json"];
            words.extend(step.arguments.iter().map(String::as_str));
            let mut command = self.product.command(&words);
            command.envs(step.environment.iter().map(|(name, value)| (name, value)));
            let ran = product::run(command)?;
            let verb = step.arguments.first().cloned().unwrap_or_default();
            let now = understand(verb, &ran);
            let is_good = now.word == "pass";
            said = Some(now);
            if !is_good {
                break;
            }
        }
        let mut said: Said = said.ok_or("nothing was asked")?;
        said.took_ms = u64::try_from(began.elapsed().as_millis())?;
        Ok(said)
    }

    /// A command that stock tools of the estate are run with.
    pub(crate) fn stock(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.scrap()).current_dir("/");
        command
    }
}

/// What a run of the product has said.
fn understand(verb: String, ran: &Ran) -> Said {
    let summary = ran
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["event"] == "summary");
    let drill = summary.as_ref().map(|summary| &summary["drill"]).filter(|drill| drill.is_object());
    let mut codes = match drill {
        Some(drill) => product::codes(drill),
        None => codes_in(&format!("{}\n{}", ran.stdout, ran.stderr)),
    };
    codes.sort();
    codes.dedup();
    let word = match (drill, ran.code) {
        (Some(drill), Some(0 | 6)) if is_equal(drill) => "pass".to_owned(),
        // Whoever reads exit codes takes it for a pass; it proves nothing all the same.
        (Some(_), Some(0 | 6)) => "unproven".to_owned(),
        (None, Some(0)) => "pass".to_owned(),
        (Some(drill), _) => drill["verdict"]["word"].as_str().unwrap_or("refused").to_owned(),
        (None, _) => "refused".to_owned(),
    };
    let mut words = drill.map_or_else(String::new, found);
    for said in [&ran.stderr, &ran.stdout] {
        if words.is_empty() {
            words = said.trim().chars().take(WORDS_MAX).collect();
        }
    }
    Said { verb, exit: ran.code, word, codes, took_ms: 0, words }
}

/// Most characters of what a run has said that are kept.
const WORDS_MAX: usize = 600;

/// What a drill has found, in its own words.
fn found(drill: &Value) -> String {
    let of = |findings: &Value| findings.as_array().cloned().unwrap_or_default();
    let checks = drill["checks"].as_array().into_iter().flatten();
    let all = of(&drill["findings"]).into_iter().chain(checks.flat_map(|check| of(&check["findings"])));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines: Vec<String> = all
        .map(|finding| {
            format!("{} {}: {}", text(&finding["code"]), text(&finding["subject"]), text(&finding["detail"]))
        })
        .collect();
    lines.join("; ").chars().take(WORDS_MAX).collect()
}

/// Codes of findings that a text names.
fn codes_in(text: &str) -> Vec<String> {
    use seaworthy_model::finding::FindingCode;
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '-';
    let words: Vec<&str> = text.split(|character: char| !is_word(character)).collect();
    FindingCode::ALL
        .iter()
        .map(|code| code.as_str())
        .filter(|code| words.contains(code))
        .map(str::to_owned)
        .collect()
}

/// Whether a drill has shown that the content is equal, and the control line that a difference would have been seen.
fn is_equal(drill: &Value) -> bool {
    let level = drill["verdict"]["level"].as_str().unwrap_or_default();
    let checks = drill["expected_checks"].as_array().map_or(0, Vec::len);
    drill["verdict"]["word"] == "pass"
        && matches!(level, "A4" | "A5" | "A6")
        && product::codes(drill).is_empty()
        && drill["control"]["caught"] == true
        && checks > 0
}

pub(crate) fn count_postgres(server: &Server, database: &str) -> Outcome<Counts> {
    let said = server.sql(
        database,
        "SELECT format('%I.%I', n.nspname, c.relname), (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM %I.%I', n.nspname, c.relname), false, true, '')))[1]
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1",
    )?;
    said.lines()
        .map(|line| {
            let (table, count) =
                line.rsplit_once('|').ok_or_else(|| Fault::from(format!("count: {line}")))?;
            Ok((table.to_owned(), count.parse()?))
        })
        .collect()
}

pub(crate) fn count_sqlite(path: &Path) -> Outcome<Counts> {
    let connection = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut counts = Counts::new();
    for name in names {
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        let count: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        counts.insert(name, u64::try_from(count)?);
    }
    Ok(counts)
}

/// The number of entries, and of bytes in files.
pub(crate) fn count_tree(root: &Path) -> Outcome<Counts> {
    let (mut entries, mut bytes) = (0, 0);
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            entries += 1;
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.is_file() {
                bytes += metadata.len();
            }
        }
    }
    Ok(Counts::from([("entries".to_owned(), entries), ("bytes".to_owned(), bytes)]))
}

/// Copies a file or a directory of plain files, with modes.
pub(crate) fn copy_all(from: &Path, to: &Path) -> Outcome {
    if fs::symlink_metadata(from)?.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_all(&entry.path(), &to.join(entry.file_name()))?;
        }
        fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    } else {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from, to)?;
    }
    Ok(())
}

/// Removes a file or a directory, if it is there.
pub(crate) fn remove(path: &Path) -> Outcome {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("remove `{}`: {error}", path.display()).into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Seconds and nanoseconds since 1970.
fn rustix_time(time: SystemTime) -> Outcome<(i64, i64)> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok((i64::try_from(since.as_secs())?, i64::from(since.subsec_nanos())))
}

/// Sets a link's own time.
pub(crate) fn touch_link(path: &Path, time: &(i64, i64)) -> Outcome {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
    let moment = Timespec { tv_sec: time.0, tv_nsec: time.1 };
    let both = Timestamps { last_access: moment, last_modification: moment };
    rustix::fs::utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

impl Stage {
    /// Puts a link's own time back to that of the tree.
    pub(crate) fn settle_link(&self, path: &Path) -> Outcome {
        touch_link(path, &rustix_time(self.began)?)
    }

    /// The instant at which everything in the tree was last changed.
    pub(crate) fn began(&self) -> SystemTime {
        self.began
    }
}
