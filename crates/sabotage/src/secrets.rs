//! Looks for a secret where none may be: in argument lists while everything runs, and in what a run leaves behind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use seaworthy_testkit::product::PASSWORD;

use crate::Outcome;

/// How often the argument list of one process is read.
const LOOKS: u32 = 10;

/// Reads the argument list of every process of this machine every 30 ms while it is young, and counts those that hold the
/// secret.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    samples: Arc<AtomicU64>,
    hits: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    pub(crate) fn start() -> Self {
        let (stop, samples, hits) = (Arc::default(), Arc::default(), Arc::default());
        let (halt, counted, found): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) =
            (Arc::clone(&stop), Arc::clone(&samples), Arc::clone(&hits));
        let thread = std::thread::spawn(move || {
            // What a program was given does not change but when it becomes another one, soon after it was born.
            let mut seen: BTreeMap<OsString, u32> = BTreeMap::new();
            while !halt.load(Ordering::Relaxed) {
                let mut living = BTreeMap::new();
                // A process that ends while it is looked at shows nothing.
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let name = entry.file_name();
                    if !name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
                        continue;
                    }
                    let times = seen.get(&name).copied().unwrap_or(0);
                    if times < LOOKS
                        && let Ok(words) = fs::read(entry.path().join("cmdline"))
                    {
                        counted.fetch_add(1, Ordering::Relaxed);
                        found.fetch_add(u64::from(holds(&words)), Ordering::Relaxed);
                    }
                    living.insert(name, (times + 1).min(LOOKS));
                }
                seen = living;
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        Self { stop, samples, hits, thread: Some(thread) }
    }

    /// How many argument lists were read so far, and how many held the secret.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.samples.load(Ordering::Relaxed), self.hits.load(Ordering::Relaxed))
    }

    /// How many argument lists were read, and how many held the secret.
    pub(crate) fn end(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the sampler does not panic");
        }
        self.so_far()
    }
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes())
}

/// Files below a directory that hold the secret.
pub(crate) fn left_in(directory: &Path) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                open.push(path);
            } else if metadata.is_file() && holds(&fs::read(&path)?) {
                found.push(format!("{} holds the password", path.display()));
            }
        }
    }
    Ok(found)
}
