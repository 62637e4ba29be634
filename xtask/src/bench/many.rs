//! How much memory very much takes: the product on very many files, the engine on very many blobs.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use super::logical::{Place, build};
use super::tools::Tool;
use super::{Operation, Options, cost_of, empty};
use crate::measure::Cost;
use crate::process::{self, Echo};
use crate::workspace;

type Failure = Box<dyn std::error::Error>;

/// Files of the tree, each of a few lines of text or none: three of five in one directory, the others a hundred in a directory.
const FILES: f64 = 500_000.0;
const FILES_PER_DIRECTORY: u64 = 100;

/// Files of the database, each of a gigabyte, in one directory; pages of holes, with a number in every fourth.
const SEGMENTS: f64 = 50.0;
const SEGMENT_BYTES: u64 = 1 << 30;
const PIECE_BYTES: u64 = 32 << 10;

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Many {
    /// In words.
    pub(super) described: Vec<String>,
    /// What was done to what, and what it cost each time.
    pub(super) acts: Vec<(String, Vec<Cost>)>,
}

impl Many {
    fn add(&mut self, round: u32, what: &str, cost: Cost) {
        println!(
            "   round {} {what:<40} {:>7.2}s wall {:>7.2}s cpu {:>6.0} MiB peak",
            round + 1,
            cost.wall_s,
            cost.user_s + cost.system_s,
            cost.peak_rss_mib
        );
        match self.acts.iter_mut().find(|(name, _)| name == what) {
            Some((_, costs)) => costs.push(cost),
            None => self.acts.push((what.to_owned(), vec![cost])),
        }
    }
}

/// Measures; an error is a run that failed, and nothing is reported then.
pub(super) fn measure(options: &Options, tools: &[Tool]) -> Result<Many, Failure> {
    let mut many = Many::default();
    files(options, &mut many)?;
    blobs(options, tools, &mut many)?;
    Ok(many)
}

fn files(options: &Options, many: &mut Many) -> Result<(), Failure> {
    let product = build(&workspace::root())?;
    let count = (FILES * options.scale).round().max(1.0) as u64;
    let tree = options.work.join("many");
    empty(&tree)?;
    let (in_one, one) = (count / 5 * 3, tree.join("one"));
    fs::create_dir_all(&one)?;
    for number in 0..count {
        let directory = if number < in_one {
            one.clone()
        } else {
            let group = (number - in_one) / FILES_PER_DIRECTORY;
            tree.join(format!("{:03}", group / 100)).join(format!("{:02}", group % 100))
        };
        if number >= in_one && (number - in_one).is_multiple_of(FILES_PER_DIRECTORY) {
            fs::create_dir_all(&directory)?;
        }
        let text = format!("line {number} of a file\n").repeat(usize::try_from(number % 7)?);
        fs::write(directory.join(format!("file-{number:07}.txt")), text)?;
    }
    let described = format!(
        "m: {count} files of at most 200 bytes, {in_one} in one directory, {FILES_PER_DIRECTORY} in each of the others"
    );
    println!("== {described}");
    many.described.push(described);
    super::data::settle(&tree)?;
    for round in 0..options.rounds {
        let place = Place { product: product.clone(), directory: options.work.join("run") };
        empty(&place.directory)?;
        fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o711))?;
        let repository = place.directory.join("repository").display().to_string();
        let path = tree.display().to_string();
        place.run(&["init", "--non-interactive", "--repository", &repository, "--files", &path])?;
        for (what, arguments) in [
            ("many files: first backup", ["backup", "--quiet"]),
            ("many files: unchanged backup", ["backup", "--quiet"]),
            ("many files: drill", ["drill", "--quiet"]),
        ] {
            let (cost, failure) = cost_of(&place.command(&arguments), &options.work.join("cost.json"))?;
            if let Some(why) = failure {
                return Err(format!("{what}: {why}").into());
            }
            many.add(round, what, cost);
        }
        empty(&place.directory)?;
    }
    fs::remove_dir_all(&tree)?;
    Ok(())
}

fn blobs(options: &Options, tools: &[Tool], many: &mut Many) -> Result<(), Failure> {
    let ours = tools.iter().find(|tool| tool.is_ours()).ok_or("our engine is left out")?;
    let segments = (SEGMENTS * options.scale).round().max(1.0) as u64;
    let data = options.work.join("blobs");
    empty(&data)?;
    File::create(data.join("PG_VERSION"))?;
    let mut number = 0_u64;
    for segment in 0..segments {
        let file = File::create(data.join((segment + 1).to_string()))?;
        file.set_len(SEGMENT_BYTES)?;
        for piece in 0..SEGMENT_BYTES / PIECE_BYTES {
            file.write_all_at(&number.to_le_bytes(), piece * PIECE_BYTES)?;
            number += 1;
        }
    }
    let described =
        format!("m: a database of {segments} GiB in one directory, mostly holes, in {number} pieces");
    println!("== {described}");
    many.described.push(described);
    super::data::settle(&data)?;
    let place = options.work.join("run").join(&ours.name);
    empty(&place)?;
    fs::create_dir_all(place.join("home"))?;
    for mut command in ours.prepare(&place) {
        let ran = process::run(&mut command, super::LIMIT, Echo::Quiet)?;
        if !ran.is_success() {
            return Err(format!("init: {}", process::last_lines(&ran.output, 3)).into());
        }
    }
    for (what, operation) in [
        ("many blobs: first backup", Operation::Initial),
        ("many blobs: unchanged backup", Operation::Unchanged),
        ("many blobs: check --read-data", Operation::Check),
    ] {
        let command = ours.command(operation, &data, &place, Path::new("/nowhere"));
        let (cost, failure) = cost_of(&command, &options.work.join("cost.json"))?;
        if let Some(why) = failure {
            return Err(format!("{what}: {why}").into());
        }
        many.add(0, what, cost);
    }
    empty(&options.work.join("run"))?;
    fs::remove_dir_all(&data)?;
    Ok(())
}
