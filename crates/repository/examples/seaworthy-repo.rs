//! A thin command line over the crate, for benchmarks and for comparing with other programs.
//!
//! `seaworthy-repo <repository> init|snapshots|backup|stream|ls|dump|restore|check|copy|forget|prune …`, password in `SEAWORTHY_REPO_PASSWORD`.
#![expect(clippy::print_stdout, reason = "it is a command line")]

use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::process::ExitCode;

use seaworthy_repository::{
    CheckOptions, CheckRead, Control, CopyOf, CopyOptions, Cuts, FileMeta, ForgetOptions, Id, InitOptions,
    KdfParams, OpenOptions, ParentUse, PruneOptions, Repository, RepositoryError, RestoreOptions,
    SessionOptions, SnapshotPath, TreeOptions, copy, open_store,
};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(e) => {
            let mut text = e.to_string();
            let mut cause = e.source();
            while let Some(inner) = cause {
                text.push_str(": ");
                text.push_str(&inner.to_string());
                cause = inner.source();
            }
            #[expect(clippy::print_stderr, reason = "it is a command line")]
            {
                eprintln!("error: {text}");
            }
            ExitCode::FAILURE
        }
    }
}

fn pick(repository: &Repository, name: &str, control: &Control) -> Fallible<Id> {
    let snapshots = repository.snapshots(control)?;
    let found = if name == "latest" {
        snapshots.last()
    } else {
        snapshots.iter().find(|(id, _)| id.hex().starts_with(name))
    };
    Ok(found.ok_or("no such snapshot")?.0)
}

fn run() -> Fallible<ExitCode> {
    seaworthy_repository::survive_hangup()?;
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| {
        let at = args.iter().position(|arg| arg == name);
        at.map(|at| args.remove(at)).is_some()
    };
    let (weak, rabin, pages, no_parent, no_verify) =
        (flag("--weak"), flag("--rabin"), flag("--pages"), flag("--force"), flag("--no-verify"));
    let read_data = flag("--read-data");
    let level = if flag("--level3") {
        3
    } else if flag("--level2") {
        2
    } else {
        SessionOptions::default().compression_level
    };
    let mut args = args.iter().map(String::as_str);
    let store = open_store(args.next().ok_or("which repository?")?)?;
    let command = args.next().ok_or("which command?")?;
    let password = std::env::var("SEAWORTHY_REPO_PASSWORD")?;
    let control = Control::new();
    let cuts = if rabin {
        Cuts::Rabin
    } else if pages {
        Cuts::Pages { page: 8192, pages_per_piece: 4 }
    } else {
        Cuts::ContentDefined
    };
    if command == "init" {
        let kdf = if weak { KdfParams::fast_and_weak() } else { KdfParams::default() };
        let options = InitOptions { kdf, ..InitOptions::default() };
        println!("{}", Repository::init(&store, password.as_bytes(), &options, &control)?.id());
        return Ok(ExitCode::SUCCESS);
    }
    let scratch = Some(std::env::temp_dir().join("seaworthy-repo"));
    let options = OpenOptions { scratch, ..OpenOptions::default() };
    let repository = Repository::open(&store, password.as_bytes(), &options, &control)?;
    match command {
        "snapshots" => {
            for (id, snapshot) in repository.snapshots(&control)? {
                println!(
                    "{id} {} {} {:?} {:?}",
                    snapshot.time, snapshot.hostname, snapshot.paths, snapshot.tags
                );
            }
        }
        "stream" => {
            let path = args.next().ok_or("which path inside the snapshot?")?;
            let options = SessionOptions { paths: vec![path.to_owned()], ..SessionOptions::default() };
            let session = repository.begin(options, &control)?;
            let mut file = session.file(&SnapshotPath::new(path)?, FileMeta::default(), cuts)?;
            let mut buffer = vec![0; 256 << 10];
            let mut input = std::io::stdin().lock();
            loop {
                let n = input.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                file.write(&buffer[..n])?;
            }
            file.finish()?;
            println!("{}", session.commit(&control)?.id);
        }
        "backup" => {
            let path = std::path::absolute(args.next().ok_or("which directory?")?)?;
            let parent = if no_parent { ParentUse::None } else { ParentUse::Automatic };
            let paths = vec![path.display().to_string()];
            let options = SessionOptions {
                paths,
                parent,
                verify: !no_verify,
                compression_level: level,
                ..SessionOptions::default()
            };
            let session = repository.begin(options, &control)?;
            let tree =
                TreeOptions { cuts: Some(std::sync::Arc::new(move |_, _| cuts)), ..TreeOptions::default() };
            let report = session.tree(&path, &tree, &mut |_| {})?;
            let committed = session.commit(&control)?;
            println!("{}", committed.id);
            println!(
                "{} files, {} bytes, {} from parent; added {} as {} in {} packs; {} incomplete",
                report.files,
                report.bytes,
                report.from_parent,
                committed.summary.data_added,
                committed.summary.data_added_packed,
                committed.packs,
                committed.incomplete_count
            );
            for entry in &committed.incomplete {
                println!("incomplete: {} {:?}", seaworthy_repository::quote::quote(&entry.path), entry.why);
            }
            if !committed.is_complete() {
                return Ok(ExitCode::from(3));
            }
        }
        "ls" => {
            let id = pick(&repository, args.next().ok_or("which snapshot?")?, &control)?;
            repository.list(&id, &SnapshotPath::new("")?, &control, |entry| {
                let path: Vec<String> =
                    entry.path.iter().map(|p| seaworthy_repository::quote::quote(p)).collect();
                println!("{} /{}", entry.node.kind.word(), path.join("/"));
                ControlFlow::Continue(())
            })?;
        }
        "dump" => {
            let id = pick(&repository, args.next().ok_or("which snapshot?")?, &control)?;
            let path = SnapshotPath::new(args.next().ok_or("which path?")?)?;
            let mut reader = repository.open_file(&id, &path, &control)?;
            let mut out = std::io::stdout().lock();
            while let Some(window) = reader.next_window()? {
                out.write_all(&window)?;
            }
        }
        "restore" => {
            let id = pick(&repository, args.next().ok_or("which snapshot?")?, &control)?;
            let into = std::path::PathBuf::from(args.next().ok_or("into which directory?")?);
            let under = SnapshotPath::new(args.next().unwrap_or_default())?;
            let options = RestoreOptions { verify: !no_verify, ..RestoreOptions::default() };
            let summary = repository.restore(&id, &under, &into, &options, &control)?;
            println!(
                "{} files, {} directories, {} symlinks, {} hard links, {} specials, {} bytes; {} read; {} problems",
                summary.files,
                summary.directories,
                summary.symlinks,
                summary.hardlinks,
                summary.specials,
                summary.bytes,
                summary.bytes_read,
                summary.problem_count
            );
            for problem in &summary.problems {
                println!(
                    "problem: {} {:?}",
                    seaworthy_repository::quote::quote(&problem.path),
                    problem.error
                );
            }
            if !summary.is_complete() {
                return Ok(ExitCode::from(3));
            }
        }
        "copy" => {
            let target = open_store(args.next().ok_or("into which repository?")?)?;
            let target = Repository::open(&target, password.as_bytes(), &options, &control)?;
            println!("{:#?}", copy(&repository, CopyOf::All, &target, &CopyOptions::default(), &control)?);
        }
        "forget" => {
            let id = pick(&repository, args.next().ok_or("which snapshot?")?, &control)?;
            println!("{:#?}", repository.forget(&[id], &ForgetOptions::default(), &control)?);
        }
        "prune" => {
            let delete_after = match args.next() {
                Some("at-once") => std::time::Duration::ZERO,
                _ => PruneOptions::default().delete_after,
            };
            println!(
                "{:#?}",
                repository.prune(&PruneOptions { delete_after, ..PruneOptions::default() }, &control)?
            );
        }
        "check" => {
            let read = if read_data { CheckRead::All } else { CheckRead::None };
            let report = repository.check(&CheckOptions { read, ..CheckOptions::default() }, &control)?;
            for finding in &report.findings {
                println!("{:?} {} {}: {}", finding.kind, finding.what, finding.id, finding.why);
                for reach in &finding.reach {
                    println!(
                        "  reaches {} {}",
                        reach.snapshot,
                        seaworthy_repository::quote::quote(&reach.path)
                    );
                }
            }
            for hint in &report.hints {
                println!("hint: {hint}");
            }
            println!("{} packs, {} read, {} bytes", report.packs, report.packs_read, report.bytes_read);
            if !report.is_sound() {
                return Ok(ExitCode::FAILURE);
            }
        }
        other => return Err(Box::new(RepositoryError::Unsupported { what: other.to_owned() })),
    }
    Ok(ExitCode::SUCCESS)
}
