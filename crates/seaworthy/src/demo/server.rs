//! A throw-away PostgreSQL for the demo, in a sandbox of its own, with a shop and sales that go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seaworthy_interface::{Cx, Exec, Sandbox, SandboxProcess};
use tokio_postgres::{Config, NoTls};

use super::estate::{SALE, SHOP};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// The newest installed PostgreSQL that has both server and client.
pub(crate) fn binaries() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let major = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let bin = entry.path().join("bin");
        let is_whole =
            ["initdb", "postgres", "pg_dump", "pg_restore"].iter().all(|tool| bin.join(tool).is_file());
        if let (Some(major), true) = (major, is_whole) {
            found.push((major, bin));
        }
    }
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

/// A running shop.
pub(crate) struct Shop {
    /// `PostgreSQL 15.18`.
    pub(crate) version: String,
    /// Directory of its socket.
    pub(crate) socket: PathBuf,
    sandbox: Arc<dyn Sandbox>,
    server: Box<dyn SandboxProcess>,
    stop: Arc<AtomicBool>,
    sales: tokio::task::JoinHandle<Result<u64, tokio_postgres::Error>>,
}

fn exec(bin: &Path, tool: &str, arguments: &[&str]) -> Exec {
    let mut argv = vec![bin.join(tool).display().to_string()];
    argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Exec {
        argv,
        env: vec![
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        ],
        output_bytes_max: 64 * 1024,
        ..Exec::default()
    }
}

async fn connect(socket: &Path, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) =
        Config::new().host_path(socket).port(5432).user("postgres").dbname(database).connect(NoTls).await?;
    drop(tokio::spawn(connection));
    Ok(client)
}

impl Shop {
    /// Makes a cluster in `sandbox`, starts it, fills it, and begins to sell.
    pub(crate) async fn start(cx: &Cx, sandbox: Arc<dyn Sandbox>, bin: &Path) -> Outcome<Self> {
        let root = sandbox.root().to_owned();
        let data = root.join("data").display().to_string();
        let made = sandbox
            .exec(
                cx,
                exec(bin, "initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"]),
            )
            .await?;
        if made.status != 0 {
            return Err(Failure::new(
                Exit::Unexpected,
                format!(
                    "initdb ended with {}: {}",
                    made.status,
                    String::from_utf8_lossy(&made.stderr).trim()
                ),
            ));
        }
        let socket = root.display().to_string();
        let settings = [
            "-D",
            data.as_str(),
            "-k",
            socket.as_str(),
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=64MB",
        ];
        let server = sandbox.spawn(cx, exec(bin, "postgres", &settings)).await?;
        let failed = |what: &'static str| {
            move |error: tokio_postgres::Error| Failure::because(Exit::Unexpected, what, &error)
        };
        let admin = ready(&root).await?;
        admin.batch_execute("CREATE DATABASE shop").await.map_err(failed("make the sample shop"))?;
        let version: String = admin
            .query_one("SHOW server_version", &[])
            .await
            .map_err(failed("ask the sample server"))?
            .get(0);
        let client = connect(&root, "shop").await.map_err(failed("connect to the sample shop"))?;
        client.batch_execute(SHOP).await.map_err(failed("fill the sample shop"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&stop);
        let sales = tokio::spawn(async move {
            let mut sold = 0;
            while !watched.load(Ordering::Relaxed) {
                client.batch_execute(SALE).await?;
                sold += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            Ok(sold)
        });
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        Ok(Self { version: format!("PostgreSQL {version}"), socket: root, sandbox, server, stop, sales })
    }

    /// Stops selling, the server, and the sandbox.
    pub(crate) async fn stop(mut self) -> Outcome<()> {
        let cx = Cx::unbounded().within(Duration::from_secs(20));
        self.stop.store(true, Ordering::Relaxed);
        self.sales
            .await
            .map_err(|error| Failure::because(Exit::Unexpected, "end the sample's sales", &error))?
            .map_err(|error| Failure::because(Exit::Unexpected, "sell in the sample shop", &error))?;
        self.server.stop(&cx, 2, Duration::from_secs(5)).await?;
        self.sandbox.close(&cx).await?;
        Ok(())
    }
}

/// Connects as soon as the server answers.
async fn ready(socket: &Path) -> Outcome<tokio_postgres::Client> {
    let mut last = None;
    for _ in 0..200 {
        match connect(socket, "postgres").await {
            Ok(client) => return Ok(client),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(match last {
        Some(error) => Failure::because(Exit::Unexpected, "start the sample PostgreSQL within 10 s", &error),
        None => Failure::new(Exit::Unexpected, "start the sample PostgreSQL within 10 s"),
    })
}
