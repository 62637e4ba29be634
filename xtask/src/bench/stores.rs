//! Replication into an object store, against `restic copy` and `rclone copy` of the same repository into the same service.
//!
//! What they do differs. `rclone copy` sends the files as they are. `restic copy` opens both repositories, and decrypts and encrypts every
//! blob; so do we, and then we compare the digest of each pack, read a share back, and write a receipt. How fast the service itself
//! takes plain uploads is measured in the same rounds, because an emulator is slower than any of the tools.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use seaworthy_testkit::bucket::{Bucket, Settings};
use seaworthy_testkit::components;
use seaworthy_testkit::emulator::{Emulator, Kind};
use seaworthy_testkit::estate::Dice;

use super::data::{self, Set};
use super::logical::{Place, build};
use super::{LIMIT, Options, cost_of, empty};
use crate::measure::Cost;
use crate::process::{self, Echo};
use crate::workspace;

type Failure = Box<dyn std::error::Error>;

const PASSWORD: &str = "bench-only";
/// Files of the incompressible set, and bytes of each at scale 1: 224 MB.
const FILES: u64 = 7;
const FILE_BYTES: f64 = 32e6;
/// Of the database's directory, which is of 2 GB at scale 1, as much as of the other set.
const DATABASE: f64 = 0.1;
/// Size of a plain upload, which is that of a pack.
const UPLOAD: usize = 16 << 20;

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Stores {
    /// In words.
    pub(super) described: Vec<String>,
    /// By data, service and tool, in order.
    pub(super) rows: Vec<Row>,
}

/// One tool on one set and one service.
#[derive(Debug)]
pub(super) struct Row {
    /// Which data.
    pub(super) data: &'static str,
    /// Which service.
    pub(super) service: &'static str,
    /// Which tool.
    pub(super) tool: &'static str,
    /// What each round cost.
    pub(super) costs: Vec<Cost>,
}

/// A service that is up, and how to reach it.
enum Service {
    Emulator(Emulator),
    Own(Bucket),
}

impl Service {
    fn name(&self) -> &'static str {
        match self {
            Self::Emulator(_) => "LocalStack",
            Self::Own(_) => "in memory",
        }
    }

    fn endpoint(&self) -> String {
        match self {
            Self::Emulator(emulator) => emulator.endpoint(),
            Self::Own(bucket) => bucket.endpoint(),
        }
    }

    /// An empty bucket; what was in the one before is gone, so that no round pays for another's memory.
    fn renew(&self, round: u32) -> io::Result<String> {
        let name = format!("bench-{round}");
        let before = round.checked_sub(1).map(|before| format!("bench-{before}"));
        match self {
            Self::Emulator(emulator) => {
                before.map_or(Ok(()), |before| emulator.remove(&before))?;
                emulator.make(&name)?;
            }
            Self::Own(bucket) => {
                bucket.remove(&before.unwrap_or_default());
                bucket.change(&name, |_| ());
            }
        }
        Ok(name)
    }
}

const TOOLS: [&str; 4] = ["seaworthy replicate", "restic copy", "rclone copy", "plain uploads"];

/// Measures; an error is a run that failed, and nothing is reported then.
pub(super) fn measure(options: &Options) -> Result<Stores, Failure> {
    let product = match &options.product {
        Some(product) => product.clone(),
        None => build(&workspace::root())?,
    };
    let restic = newer_restic(options)?;
    let rclone = match components::program("rclone") {
        Ok(rclone) => rclone,
        Err(_) => {
            crate::components::install_packages(&["rclone"])?;
            components::program("rclone")?
        }
    };
    let mut stores = Stores::default();
    for tool in [&restic, &rclone] {
        let said = process::capture(&tool.to_string_lossy(), &["version"], LIMIT)?;
        stores.described.push(format!("r: {}", said.lines().next().unwrap_or_default()));
    }
    let noise = options.work.join("data").join(format!("noise-{}", options.scale));
    make_noise(&noise, (FILE_BYTES * options.scale) as usize)?;
    let database = data::provide(Set::Database, DATABASE * options.scale, &options.work)?;
    for (name, path) in [("noise", &noise), ("database", &database.path)] {
        stores.described.push(format!("r: {name}, {} MB", data::size_of(path)? / 1_000_000));
        measure_one(options, (name, path), &product, &restic, &rclone, &mut stores)?;
    }
    Ok(stores)
}

fn measure_one(
    options: &Options,
    (name, data): (&'static str, &Path),
    product: &Path,
    restic: &Path,
    rclone: &Path,
    stores: &mut Stores,
) -> Result<(), Failure> {
    for service in [
        Service::Emulator(Emulator::start(Kind::LocalStack, "unused")?),
        Service::Own(Bucket::new("unused", Settings::default())?),
    ] {
        let place = Place { product: product.to_owned(), directory: options.work.join("run") };
        let near = place.directory.join("near");
        for round in 0..options.rounds {
            let bucket = service.renew(round)?;
            empty(&place.directory)?;
            configure(&place.directory, data, &service.endpoint(), &bucket)?;
            place.run(&["init", "--missing-repositories"])?;
            place.run(&["backup", "--no-replicate"])?;
            let mut init = restic_command(restic, &service, &bucket, &place.directory);
            // The service is a descendant too, and stays.
            init.arg("init");
            let ran = process::run_keeping_servers(&mut init, LIMIT, Echo::Quiet)?;
            if !ran.is_success() {
                return Err(format!("restic init: {}", process::last_lines(&ran.output, 3)).into());
            }
            for turn in 0..TOOLS.len() {
                let tool = TOOLS[(turn + round as usize) % TOOLS.len()];
                let command = match tool {
                    "seaworthy replicate" => place.command(&["replicate", "--quiet"]),
                    "restic copy" => {
                        let mut command = restic_command(restic, &service, &bucket, &place.directory);
                        command
                            .arg("copy")
                            .arg("--from-repo")
                            .arg(&near)
                            .env("RESTIC_FROM_PASSWORD", PASSWORD);
                        command
                    }
                    "rclone copy" => rclone_command(rclone, &service, &bucket, &near, &place.directory),
                    _ => {
                        let cost = upload(&service.endpoint(), &bucket, data::size_of(&near)?)?;
                        add(stores, round, (name, service.name(), tool), cost);
                        continue;
                    }
                };
                let (cost, failure) = cost_of(&command, &options.work.join("cost.json"))?;
                if let Some(why) = failure {
                    return Err(format!("{tool} of {name} into {}: {why}", service.name()).into());
                }
                add(stores, round, (name, service.name(), tool), cost);
            }
        }
        empty(&place.directory)?;
    }
    Ok(())
}

fn add(
    stores: &mut Stores,
    round: u32,
    (data, service, tool): (&'static str, &'static str, &'static str),
    cost: Cost,
) {
    println!(
        "   round {} {data:<9} {service:<11} {tool:<20} {:>7.2}s wall {:>7.2}s cpu {:>6.0} MiB peak",
        round + 1,
        cost.wall_s,
        cost.user_s + cost.system_s,
        cost.peak_rss_mib
    );
    match stores.rows.iter_mut().find(|row| (row.data, row.service, row.tool) == (data, service, tool)) {
        Some(row) => row.costs.push(cost),
        None => stores.rows.push(Row { data, service, tool, costs: vec![cost] }),
    }
}

fn newer_restic(options: &Options) -> Result<PathBuf, Failure> {
    options
        .newer_restic
        .clone()
        .or_else(|| components::restics().ok()?.pop())
        .ok_or_else(|| "no restic: run `cargo xtask test`, or name one with --newer-restic".into())
}

/// Files that do not compress, the same in every run.
fn make_noise(path: &Path, bytes: usize) -> io::Result<()> {
    empty(path)?;
    let mut dice = Dice::new(224);
    for number in 0..FILES {
        let mut content = Vec::with_capacity(bytes + 8);
        while content.len() < bytes {
            content.extend_from_slice(&dice.below(u64::MAX).to_le_bytes());
        }
        fs::write(path.join(format!("file-{number}")), &content[..bytes])?;
    }
    Ok(())
}

fn configure(directory: &Path, data: &Path, endpoint: &str, bucket: &str) -> io::Result<()> {
    let path = directory.display();
    fs::write(directory.join("password"), PASSWORD)?;
    fs::set_permissions(directory.join("password"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let password = format!("password = \"file:{path}/password\"\n");
    let text = format!(
        "[defaults]\nowner = \"bench\"\ntier = \"low\"\n\n[repositories.near]\nlocation = \"{path}/near\"\nsite = \"here\"\n{password}\n\
         [repositories.far]\nlocation = \"s3://{bucket}/ours\"\nsite = \"far\"\nendpoint = \"{endpoint}\"\n\
         access_key = \"env:BENCH_KEY\"\nsecret_key = \"env:BENCH_KEY\"\n{password}\n\
         [services.data.sources.files]\nkind = \"files\"\npaths = [\"{}\"]\n",
        data.display()
    );
    fs::write(directory.join("seaworthy.toml"), text)
}

fn restic_command(program: &Path, service: &Service, bucket: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-q", "--no-cache", "-r", &format!("s3:{}/{bucket}/restic", service.endpoint())])
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env_remove("AWS_CA_BUNDLE")
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("HOME", directory);
    command
}

/// Its defaults, and no configuration of the person who runs this.
fn rclone_command(program: &Path, service: &Service, bucket: &str, near: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--config", "/dev/null", "-q", "copy"])
        .arg(near)
        .arg(format!("bench:{bucket}/rclone"))
        .env("RCLONE_CONFIG_BENCH_TYPE", "s3")
        .env("RCLONE_CONFIG_BENCH_PROVIDER", "Other")
        .env("RCLONE_CONFIG_BENCH_ENDPOINT", service.endpoint())
        .env("RCLONE_CONFIG_BENCH_REGION", "us-east-1")
        .env("RCLONE_CONFIG_BENCH_ACCESS_KEY_ID", "test")
        .env("RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY", "test")
        .env("RCLONE_CONFIG_BENCH_FORCE_PATH_STYLE", "true")
        .env("RCLONE_CONFIG_BENCH_NO_CHECK_BUCKET", "true")
        .env_remove("AWS_CA_BUNDLE")
        .env("HOME", directory);
    command
}

/// As many bytes as the repository has, by two connections that do nothing else: no tool is faster than this.
fn upload(endpoint: &str, bucket: &str, bytes: u64) -> Result<Cost, Failure> {
    let address = endpoint.trim_start_matches("http://").to_owned();
    let count = usize::try_from(bytes)?.div_ceil(UPLOAD);
    let body = vec![7_u8; UPLOAD];
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|which| {
                let (address, body) = (&address, &body);
                scope.spawn(move || -> io::Result<()> {
                    let mut connection = TcpStream::connect(address)?;
                    let mut answers = BufReader::new(connection.try_clone()?);
                    for number in (which..count).step_by(2) {
                        write!(
                            connection,
                            "PUT /{bucket}/plain/{number} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {UPLOAD}\r\n\r\n"
                        )?;
                        connection.write_all(body)?;
                        answered(&mut answers)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| io::Error::other("a thread of the uploads died"))?
        })
    })?;
    Ok(Cost {
        wall_s: began.elapsed().as_secs_f64(),
        user_s: 0.0,
        system_s: 0.0,
        peak_rss_mib: 0.0,
        code: Some(0),
    })
}

fn answered(answers: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    if !line.contains(" 200 ") {
        return Err(io::Error::other(format!("a plain upload was answered {line}")));
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body)
}
