//! Loss of power: what was acknowledged is there after the file system has been recovered from what had reached the disk.
//!
//! Everything lies on an ext4 of its own in a file. While a backup works, the process is stopped and the file is copied: that is
//! what a disk holds whose machine has lost power. The copy is mounted, which replays its journal, and looked at.
//!
//! Needs root, for mounting. `SEAWORTHY_CUTS` says how often; 0 where the user is another.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seaworthy_testkit::components::{program, restics};
use seaworthy_testkit::estate::{self, Dice};
use seaworthy_testkit::product::{PASSWORD, Product, run, wait};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_seaworthy");

/// A command of the system's that has to succeed.
fn system(name: &str, arguments: &[&str]) {
    let mut command = Command::new(program(name).unwrap());
    command.args(arguments);
    run(command).unwrap().expect(0).unwrap();
}

/// A mounted image; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, place: PathBuf) -> Self {
        fs::create_dir_all(&place).unwrap();
        // Nothing is written because time has passed: only what was synced is on the disk.
        system("mount", &["-o", "loop,commit=600", image.to_str().unwrap(), place.to_str().unwrap()]);
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a test that fails leaves a stopped process behind, and must say why it failed.
        let mut command = Command::new(program("umount").expect("every machine that mounts unmounts"));
        command.args(["--lazy"]).arg(&self.0);
        let ended = run(command).map(|ran| ran.code);
        assert!(matches!(ended, Ok(Some(0))) || std::thread::panicking(), "{ended:?}");
    }
}

/// Copies that receipts acknowledge, in a state directory.
fn acknowledged(product: &Product, state: &Path) -> BTreeSet<String> {
    let state = state.to_str().unwrap();
    let config = product.path().join("seaworthy.toml");
    let mut command = Command::new(PROGRAM);
    command.args(["points", "--json", "--state-dir", state, "--config", config.to_str().unwrap()]);
    command.env_clear().envs(product.environment());
    let points: Value = serde_json::from_str(&run(command).unwrap().expect(0).unwrap()).unwrap();
    let all = points["data"].as_array().unwrap();
    all.iter().map(|point| point["copy"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_acknowledged_survives_a_loss_of_power() {
    let is_root = rustix::process::geteuid().is_root();
    let cuts: u64 = std::env::var("SEAWORTHY_CUTS")
        .map_or(if is_root { 6 } else { 0 }, |text| text.parse().expect("SEAWORTHY_CUTS is a number"));
    if cuts == 0 {
        println!("no power was cut: only root can mount");
        return;
    }
    let seed: u64 = std::env::var("SEAWORTHY_SEED").map_or(4, |text| text.parse().unwrap());
    let mut dice = Dice::new(seed);
    let place = tempfile::Builder::new().prefix("swt-power").tempdir_in("/var/tmp").unwrap();
    let image = place.path().join("disk");
    fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    system(
        "mkfs.ext4",
        &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image.to_str().unwrap()],
    );
    let disk = Mounted::new(&image, place.path().join("disk.d"));
    fs::set_permissions(&disk.0, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let product = Product::new_in(&disk.0, PROGRAM, "").unwrap();
    // The source is elsewhere: only what we write is asked about.
    let source = place.path().join("source");
    fs::create_dir(&source).unwrap();
    estate::mixed_tree(&source, 60, 3 << 20, 5).unwrap();
    product
        .configure(&format!(
            "[services.files.sources.tree]\nkind = \"files\"\npaths = [\"{}\"]\n",
            source.display()
        ))
        .unwrap();
    let began = Instant::now();
    product.backup("files").unwrap();
    // As long as a run takes; where one had ended before its power was cut, the next cuts come earlier.
    let mut usual = began.elapsed();
    system("sync", &["-f", disk.0.to_str().unwrap()]);
    let mut unfinished = 0;
    for cut in 0..cuts {
        let mut bytes = vec![0; 400_000];
        dice.fill(&mut bytes);
        fs::write(source.join(format!("new-{}", cut % 5)), bytes).unwrap();
        let mut promised = acknowledged(&product, &product.state());
        let mut command = product.command(&["backup", "files"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let waited = usual.mul_f64(dice.below(1_200) as f64 / 1_000.0);
        std::thread::sleep(waited);
        let pid = child.id().to_string();
        let was_running = child.try_wait().unwrap().is_none();
        if was_running {
            system("kill", &["-STOP", &pid]);
            unfinished += 1;
        }
        // A stopped process may hold the catalogue: what had been acknowledged before it began must be in the copy, and what
        // it has acknowledged itself where it had ended.
        if !was_running {
            usual = usual.min(waited);
            promised = acknowledged(&product, &product.state());
        }
        let lost = place.path().join("lost");
        system("cp", &["--sparse=always", image.to_str().unwrap(), lost.to_str().unwrap()]);
        if was_running {
            system("kill", &["-CONT", &pid]);
        }
        wait(&mut child, Duration::from_secs(60)).unwrap().expect("a backup ends");

        let what = format!("seed {seed}, cut {cut}");
        let recovered = Mounted::new(&lost, place.path().join("lost.d"));
        let inside = recovered.0.join(product.path().strip_prefix(&disk.0).unwrap());
        let kept = acknowledged(&product, &inside.join("state"));
        assert!(kept.is_superset(&promised), "{what}: {promised:?} were promised, {kept:?} are known");
        for judge in restics().unwrap() {
            let restic = |arguments: &[&str]| {
                let mut command = Command::new(&judge);
                command
                    .args(["--no-cache", "--no-lock", "-r"])
                    .arg(inside.join("repository"))
                    .args(arguments);
                command.env_clear().env("HOME", place.path()).env("RESTIC_PASSWORD", PASSWORD);
                run(command).unwrap().expect(0).unwrap_or_else(|error| panic!("{what}: {error}"))
            };
            restic(&["check", "--read-data"]);
            let snapshots: Value = serde_json::from_str(&restic(&["snapshots", "--json"])).unwrap();
            let stored: BTreeSet<String> = snapshots
                .as_array()
                .unwrap()
                .iter()
                .map(|snapshot| snapshot["id"].as_str().unwrap().to_owned())
                .collect();
            assert!(stored.is_superset(&kept), "{what}: {kept:?} are known, {stored:?} are stored");
        }
        let state = inside.join("state");
        let mut verify = Command::new(PROGRAM);
        verify.args(["verify", "--json", "--state-dir", state.to_str().unwrap()]);
        verify.env_clear().envs(product.environment());
        run(verify).unwrap().expect(0).unwrap_or_else(|error| panic!("{what}: {error}"));
        drop(recovered);
        fs::remove_file(&lost).unwrap();
    }
    assert!(cuts < 4 || unfinished > 0, "every backup had ended before its power was cut");
    product.drill("files", 0).unwrap();
    println!("figure: backup: power was lost {cuts} times, {unfinished} times before its end");
    drop(product);
}
