//! The files source against real trees: odd ones that are healthy, restores that were tampered with, readers that fail.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{CWD, FileType, Mode};
use seaworthy_drivers::source::files::FilesSource;
use seaworthy_interface::{
    Captured, CopyFile, CopyPath, CopyWriter, Cuts, Cx, DriverError, ErrorKind, NewTarget, Restored,
    Source as _, TreeEntry, TreeOptions,
};
use seaworthy_model::check::{Question, UserCheck};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::CheckName;
use seaworthy_model::receipt::is_found;
use seaworthy_model::source::FilesSpec;
use seaworthy_model::verdict::{Assurance, CheckOutcome, CheckReport, Verdict, judge};
use seaworthy_model::witness::{FilesWitness, Witness};
use seaworthy_testkit::copy::{FsCopyReader, FsCopyWriter, ReadHook};
use seaworthy_testkit::sandbox::DirectorySandbox;

struct Place {
    root: tempfile::TempDir,
    spec: FilesSpec,
    hook: Option<ReadHook>,
}

impl Place {
    /// An empty tree.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let spec = FilesSpec {
            paths: vec![tree.to_str().unwrap().to_owned()],
            exclude: Vec::new(),
            one_file_system: false,
            may_be_empty: false,
        };
        Self { root, spec, hook: None }
    }

    /// A tree with one of everything that damage can be done to.
    fn with_files() -> Self {
        let place = Self::new();
        let tree = place.tree();
        fs::create_dir_all(tree.join("etc/deep/er")).unwrap();
        fs::write(tree.join("etc/app.conf"), b"port = 1\n").unwrap();
        fs::write(tree.join("etc/deep/er/large"), noise(1_300_000)).unwrap();
        fs::write(tree.join("empty"), b"").unwrap();
        fs::write(tree.join("one"), b"linked").unwrap();
        fs::hard_link(tree.join("one"), tree.join("two")).unwrap();
        symlink("etc/app.conf", tree.join("current")).unwrap();
        place
    }

    fn tree(&self) -> PathBuf {
        self.root.path().join("tree")
    }

    fn source(&self) -> FilesSource {
        FilesSource::new(self.spec.clone(), self.root.path().join("scratch")).unwrap()
    }

    fn writer(&self) -> FsCopyWriter {
        let place = tempfile::tempdir_in(self.root.path()).unwrap().keep();
        let writer = FsCopyWriter::new(place).unwrap();
        match &self.hook {
            Some(hook) => writer.before_read(Arc::clone(hook)),
            None => writer,
        }
    }

    async fn capture(&self) -> (Captured, FsCopyReader) {
        let writer = Arc::new(self.writer());
        let captured = self.source().capture(&Cx::unbounded(), writer.clone()).await.unwrap();
        (captured, writer.commit().unwrap())
    }

    async fn restore(&self, witness: &Witness, reader: &FsCopyReader) -> Scratch {
        let sandbox = Arc::new(DirectorySandbox::new().unwrap());
        let base = seaworthy_interface::Sandbox::root(&*sandbox).join("files");
        let restored = self
            .source()
            .restore(&Cx::unbounded(), witness, Arc::new(reader.clone()), sandbox)
            .await
            .unwrap();
        let tree = base.join("0").join(self.tree().strip_prefix("/").unwrap());
        Scratch { restored, tree }
    }

    async fn drill(&self) -> (Captured, Vec<CheckReport>, Scratch) {
        let (captured, reader) = self.capture().await;
        let scratch = self.restore(&captured.witness, &reader).await;
        let reports = scratch.compare(&captured.witness).await;
        (captured, reports, scratch)
    }
}

struct Scratch {
    restored: Box<dyn Restored>,
    tree: PathBuf,
}

impl Scratch {
    async fn compare(&self, expected: &Witness) -> Vec<CheckReport> {
        self.restored.compare(&Cx::unbounded(), expected).await.unwrap()
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(bytes)
    .collect()
}

fn verdict(expected: &Witness, reports: &[CheckReport]) -> Verdict {
    judge(&expected.checks(), reports, Assurance::A4)
}

fn assert_equal(captured: &Captured, reports: &[CheckReport]) {
    let bad: Vec<_> = reports.iter().filter(|report| report.outcome != CheckOutcome::Passed).collect();
    assert_eq!(verdict(&captured.witness, reports), Verdict::Pass(Assurance::A4), "{bad:#?}");
}

fn codes(reports: &[CheckReport]) -> Vec<FindingCode> {
    reports.iter().flat_map(|report| &report.findings).map(|finding| finding.code).collect()
}

fn files(witness: &Witness) -> &FilesWitness {
    match witness {
        Witness::Files(witness) => witness,
        Witness::Postgres(_) | Witness::Sqlite(_) => panic!("not files"),
    }
}

fn age(path: &Path, time: SystemTime) {
    let file = fs::File::open(path).unwrap();
    file.set_modified(time).unwrap();
}

/// Everything a healthy tree may hold. Needs root for owners and devices, as the tests of a backup program do.
fn odd_tree(place: &Place) {
    assert!(
        rustix::process::geteuid().is_root(),
        "run these tests as root: they set owners and make devices"
    );
    let tree = place.tree();
    let file = |name: &[u8], content: &[u8]| {
        let path = tree.join(OsStr::from_bytes(name));
        fs::write(&path, content).unwrap();
        path
    };
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    file(b"plain", b"content");
    file(b"empty", b"");
    file(b"bytes \xff\xfe", b"not UTF-8");
    file(b"line\nbreak\ttab\\slash", b"control");
    file("name ünd 🐳".as_bytes(), b"emoji");
    file(b"README", b"upper");
    file(b"readme", b"lower");
    file(b".gitignore", b"*.log\nsecret\n");
    file(b"secret", b"still in scope");
    file(b"app.log", b"still in scope");
    file(b"a=b,c", b"comma");
    file(b"large", &noise(3_000_000));
    mode(&file(b"setuid", b"x"), 0o4755);
    mode(&file(b"none", b"x"), 0);
    let owned = file(b"owned", b"x");
    chown(&owned, Some(1234), Some(4321)).unwrap();
    mode(&owned, 0o2640);
    let attributes = file(b"attributes", b"x");
    xattr::set(&attributes, "user.a=b,c", b"\0value").unwrap();
    xattr::set(&attributes, "user.empty", b"").unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 5_000_000).unwrap();
    fs::hard_link(file(b"link-a", b"linked"), tree.join("link-b")).unwrap();
    fs::hard_link(tree.join("link-a"), tree.join("link-c")).unwrap();
    fs::hard_link(file(b"outside", b"x"), place.root.path().join("elsewhere")).unwrap();
    symlink("../nowhere", tree.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"to \xff"), tree.join("odd-target")).unwrap();
    symlink("/etc", tree.join("absolute")).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, tree.join(name), kind, Mode::from_raw_mode(0o600), device).unwrap();
    };
    node("pipe", FileType::Fifo, 0);
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    drop(UnixListener::bind(tree.join("socket")).unwrap());
    let deep = tree.join("deep/".repeat(40));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), b"x").unwrap();
    fs::create_dir(tree.join("hollow")).unwrap();
    mode(&tree.join("hollow"), 0o1777);
    for number in 0..700 {
        file(format!("many-{number}").as_bytes(), number.to_string().as_bytes());
    }
    age(&tree.join("plain"), SystemTime::UNIX_EPOCH - Duration::new(86_400 * 365, 123_456_789));
    age(&tree.join("owned"), SystemTime::UNIX_EPOCH + Duration::new(4_000_000_000, 1));
    age(&tree.join("hollow"), SystemTime::UNIX_EPOCH + Duration::new(1, 999_999_999));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_but_healthy_tree_comes_back_equal_and_silent() {
    let place = Place::new();
    odd_tree(&place);
    let (captured, reports, scratch) = place.drill().await;
    assert_equal(&captured, &reports);
    assert!(captured.is_complete && captured.findings.is_empty(), "{:?}", captured.findings);
    let witness = files(&captured.witness);
    assert_eq!(witness.left_out_count, 1, "the socket: {:?}", witness.left_out);
    assert!(fs::read(scratch.tree.join("secret")).is_ok(), ".gitignore is not an exclude list");
    let text = serde_json::to_string(&captured.witness).unwrap();
    assert_eq!(serde_json::from_str::<Witness>(&text).unwrap(), captured.witness);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sabotage_is_found_under_its_code() {
    type Sabotage = Box<dyn Fn(&Path)>;
    let keep = |path: PathBuf, act: &dyn Fn(&Path)| {
        let parent = path.parent().unwrap().to_owned();
        let time = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.modified().unwrap());
        let (own, above) = (time(&path), time(&parent).unwrap());
        act(&path);
        if let (Ok(own), true) = (own, path.exists()) {
            age(&path, own);
        }
        age(&parent, above);
    };
    let rows: Vec<(&str, Sabotage, FindingCode)> = vec![
        (
            "file missing",
            Box::new(move |tree| keep(tree.join("plain"), &|path| fs::remove_file(path).unwrap())),
            FindingCode::FileMissing,
        ),
        (
            "byte flipped, size and time kept",
            Box::new(move |tree| {
                keep(tree.join("large"), &|path| {
                    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                    file.write_all_at(&[!noise(2_000_001)[2_000_000]], 2_000_000).unwrap();
                });
            }),
            FindingCode::FileContent,
        ),
        (
            "truncated",
            Box::new(move |tree| {
                keep(tree.join("large"), &|path| {
                    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(2_999_999).unwrap();
                });
            }),
            FindingCode::FileContent,
        ),
        (
            "mode lost",
            Box::new(|tree| {
                fs::set_permissions(tree.join("setuid"), fs::Permissions::from_mode(0o755)).unwrap();
            }),
            FindingCode::FileMetadata,
        ),
        (
            "owner lost",
            Box::new(|tree| {
                chown(tree.join("owned"), Some(0), Some(0)).unwrap();
                fs::set_permissions(tree.join("owned"), fs::Permissions::from_mode(0o2640)).unwrap();
            }),
            FindingCode::FileMetadata,
        ),
        (
            "attribute lost",
            Box::new(|tree| xattr::remove(tree.join("attributes"), "user.empty").unwrap()),
            FindingCode::FileMetadata,
        ),
        (
            "time lost",
            Box::new(|tree| age(&tree.join("plain"), SystemTime::now())),
            FindingCode::FileMetadata,
        ),
        (
            "link retargeted",
            Box::new(move |tree| {
                keep(tree.join("dangling"), &|path| {
                    fs::remove_file(path).unwrap();
                    symlink("/etc/passwd", path).unwrap();
                });
            }),
            FindingCode::FileType,
        ),
        (
            "link turned into a file",
            Box::new(move |tree| {
                keep(tree.join("dangling"), &|path| {
                    fs::remove_file(path).unwrap();
                    fs::write(path, b"../nowhere").unwrap();
                });
            }),
            FindingCode::FileType,
        ),
        (
            "hard link split",
            Box::new(move |tree| {
                keep(tree.join("link-c"), &|path| {
                    fs::remove_file(path).unwrap();
                    fs::write(path, b"linked").unwrap();
                });
            }),
            FindingCode::FileLinks,
        ),
        (
            "whole directory missing",
            Box::new(move |tree| keep(tree.join("deep"), &|path| fs::remove_dir_all(path).unwrap())),
            FindingCode::FileMissing,
        ),
        (
            "name lost its bytes",
            Box::new(move |tree| {
                keep(tree.join(OsStr::from_bytes(b"bytes \xff\xfe")), &|path| {
                    fs::rename(path, path.with_file_name("bytes ??")).unwrap();
                });
            }),
            FindingCode::FileMissing,
        ),
        (
            "case collision",
            Box::new(move |tree| keep(tree.join("readme"), &|path| fs::remove_file(path).unwrap())),
            FindingCode::FileMissing,
        ),
        (
            "a file that was never there",
            Box::new(move |tree| keep(tree.join("planted"), &|path| fs::write(path, b"x").unwrap())),
            FindingCode::FileMissing,
        ),
        (
            "device of another number",
            Box::new(move |tree| {
                keep(tree.join("null"), &|path| {
                    fs::remove_file(path).unwrap();
                    let device = rustix::fs::makedev(1, 5);
                    rustix::fs::mknodat(
                        CWD,
                        path,
                        FileType::CharacterDevice,
                        Mode::from_raw_mode(0o600),
                        device,
                    )
                    .unwrap();
                });
            }),
            FindingCode::FileType,
        ),
    ];
    let place = Place::new();
    odd_tree(&place);
    let (captured, reader) = place.capture().await;
    for (what, sabotage, code) in rows {
        let scratch = place.restore(&captured.witness, &reader).await;
        sabotage(&scratch.tree);
        let reports = scratch.compare(&captured.witness).await;
        assert_eq!(verdict(&captured.witness, &reports), Verdict::Fail, "{what}");
        assert!(codes(&reports).contains(&code), "{what}: {:?}", codes(&reports));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_line_is_always_noticed_with_the_right_code() {
    let place = Place::with_files();
    let (captured, reader) = place.capture().await;
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let scratch = place.restore(&captured.witness, &reader).await;
        assert_equal(&captured, &scratch.compare(&captured.witness).await);
        let damage = scratch.restored.damage(&Cx::unbounded(), &captured.witness, seed).await.unwrap();
        let reports = scratch.compare(&captured.witness).await;
        assert_eq!(verdict(&captured.witness, &reports), Verdict::Fail, "{damage:?}");
        let is_found = is_found(&reports, &damage.expected, &damage.checks);
        assert!(is_found && !damage.checks.is_empty(), "{damage:?} found {:?}", codes(&reports));
        kinds.insert(damage.expected[0]);
    }
    assert_eq!(kinds.len(), 5, "each kind of damage must have been tried: {kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_is_named_and_never_passes() {
    let mut place = Place::with_files();
    let torn = place.tree().join("etc/app.conf");
    let (path, length) = (torn.clone(), AtomicU64::new(1));
    place.hook = Some(Arc::new(move |read: &Path| {
        if read == path {
            fs::write(&path, noise(length.fetch_add(1, Ordering::Relaxed) as usize))?;
        }
        Ok(())
    }));
    let (captured, reports, _) = place.drill().await;
    assert!(!captured.is_complete);
    assert_eq!(captured.findings[0].code, FindingCode::FileTorn);
    assert!(captured.findings[0].subject.ends_with("etc/app.conf"));
    assert_eq!(verdict(&captured.witness, &reports), Verdict::Inconclusive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_named_and_fails_the_drill() {
    let mut place = Place::with_files();
    let path = place.tree().join("etc/app.conf");
    place.hook = Some(Arc::new(
        move |read: &Path| {
            if read == path { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        },
    ));
    let (captured, reports, _) = place.drill().await;
    assert!(!captured.is_complete);
    assert_eq!(captured.findings.iter().map(|f| f.code).collect::<Vec<_>>(), [FindingCode::FileUnreadable]);
    assert_eq!(verdict(&captured.witness, &reports), Verdict::Fail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_vanishes_is_named_and_never_passes() {
    let mut place = Place::with_files();
    let path = place.tree().join("etc/app.conf");
    place.hook = Some(Arc::new(move |read: &Path| if read == path { fs::remove_file(read) } else { Ok(()) }));
    let (captured, reports, _) = place.drill().await;
    assert!(!captured.is_complete);
    assert!(captured.findings[0].detail.contains("vanished"), "{:?}", captured.findings);
    assert_ne!(verdict(&captured.witness, &reports), Verdict::Pass(Assurance::A4));
}

/// An archiver with a bug: it passes over whatever is called `one`.
struct Forgetful(FsCopyWriter);

impl CopyWriter for Forgetful {
    fn begin(&self, path: &CopyPath, cuts: Cuts) -> Result<Box<dyn CopyFile>, DriverError> {
        self.0.begin(path, cuts)
    }

    fn directory(&self, path: &CopyPath, mode: u32) -> Result<(), DriverError> {
        self.0.directory(path, mode)
    }

    fn tree(
        &self,
        root: &Path,
        options: &TreeOptions,
        observe: &(dyn Fn(TreeEntry) + Send + Sync),
    ) -> Result<(), DriverError> {
        let mut options = options.clone();
        options.exclude.push("etc".to_owned());
        self.0.tree(root, &options, &|entry| {
            if !entry.path.ends_with(b"/etc") {
                observe(entry);
            }
        })
    }
}

fn wait_until_settled(path: &Path) {
    let changed = fs::symlink_metadata(path).unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::new(changed.ctime() as u64, changed.ctime_nsec() as u32);
    while changed.elapsed().unwrap_or_default() < Duration::from_millis(150) {
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_archiver_passes_over_is_found_by_the_second_look() {
    let place = Place::with_files();
    wait_until_settled(&place.tree().join("etc"));
    let writer = Arc::new(Forgetful(place.writer()));
    let captured = place.source().capture(&Cx::unbounded(), writer).await.unwrap();
    assert!(!captured.is_complete);
    assert_eq!(captured.findings[0].code, FindingCode::FileMissing, "{:?}", captured.findings);
    assert!(captured.findings[0].subject.ends_with("/etc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_and_go_during_a_capture_are_no_alarm_of_the_second_look() {
    let mut place = Place::with_files();
    wait_until_settled(&place.tree().join("etc"));
    let tree = place.tree();
    place.hook = Some(Arc::new(move |read: &Path| {
        // Made in directories that were already listed.
        if read.ends_with("two") {
            fs::create_dir_all(tree.join("etc/new/er"))?;
            fs::write(tree.join("etc/new/er/file"), b"x")?;
            fs::write(tree.join("empty.new"), b"x")?;
        }
        Ok(())
    }));
    let (captured, _) = place.capture().await;
    assert!(captured.is_complete, "{:?}", captured.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_exclusion_is_scope_and_an_undeclared_one_is_not() {
    let mut place = Place::with_files();
    wait_until_settled(&place.tree().join("etc"));
    place.spec.exclude = vec!["etc/deep".to_owned()];
    let (captured, reports, scratch) = place.drill().await;
    assert_equal(&captured, &reports);
    assert!(captured.is_complete && captured.findings.is_empty(), "{:?}", captured.findings);
    assert_eq!(files(&captured.witness).left_out_count, 1);
    assert!(!scratch.tree.join("etc/deep").exists());
}

/// What is mounted below a root is not in the copy, and nobody has named it: it is left out, and told. What a pattern leaves out is
/// not told, whatever else was declared.
#[tokio::test(flavor = "multi_thread")]
async fn of_what_one_file_system_and_patterns_leave_out_only_mounts_are_told() {
    let mut place = Place::with_files();
    let mounted = place.tree().join("mounted");
    fs::create_dir(&mounted).unwrap();
    let run = |arguments: &[&str]| {
        std::process::Command::new(arguments[0]).args(&arguments[1..]).status().unwrap().success()
    };
    let path = mounted.to_str().unwrap().to_owned();
    assert!(run(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", &path]), "mounting needs root");
    let captured = {
        struct Unmount(String);
        impl Drop for Unmount {
            fn drop(&mut self) {
                std::process::Command::new("umount").args(["-l", &self.0]).status().unwrap();
            }
        }
        let _unmount = Unmount(path.clone());
        fs::write(mounted.join("inside"), b"x").unwrap();
        wait_until_settled(&mounted);
        place.spec.exclude = vec!["etc/deep".to_owned()];
        place.spec.one_file_system = true;
        place.capture().await.0
    };
    assert!(captured.is_complete, "{:?}", captured.findings);
    let told: Vec<_> =
        captured.findings.iter().map(|finding| (finding.code, finding.subject.clone())).collect();
    assert_eq!(told, [(FindingCode::ScopeNarrow, path)]);
    let witness = files(&captured.witness);
    assert_eq!(witness.left_out_count, 2, "{:?}", witness.left_out);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_tree_is_implausible_unless_declared() {
    let mut place = Place::new();
    let (captured, reports, _) = place.drill().await;
    assert_eq!(captured.findings[0].code, FindingCode::PointImplausible);
    assert_eq!(verdict(&captured.witness, &reports), Verdict::Fail);
    place.spec.may_be_empty = true;
    let (captured, reports, scratch) = place.drill().await;
    assert!(captured.findings.is_empty());
    assert_equal(&captured, &reports);
    let damage = scratch.restored.damage(&Cx::unbounded(), &captured.witness, 1).await.unwrap();
    let found = codes(&scratch.compare(&captured.witness).await);
    assert!(found.contains(&damage.expected[0]), "{damage:?} {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_probe_writes_and_leaves_nothing() {
    let place = Place::with_files();
    let (captured, _, scratch) = place.drill().await;
    let report = scratch.restored.write_probe(&Cx::unbounded()).await.unwrap();
    assert_eq!((report.outcome, report.name.as_str()), (CheckOutcome::Passed, "write-probe"));
    assert_equal(&captured, &scratch.compare(&captured.witness).await);
    fs::remove_dir_all(&scratch.tree).unwrap();
    let report = scratch.restored.write_probe(&Cx::unbounded()).await.unwrap();
    assert_eq!(report.outcome, CheckOutcome::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_instant_is_that_of_the_newest_file() {
    let place = Place::with_files();
    let newest = SystemTime::now() + Duration::from_secs(3600);
    age(&place.tree().join("empty"), newest);
    let (_, _, scratch) = place.drill().await;
    let found = scratch.restored.newest(&Cx::unbounded()).await.unwrap().unwrap();
    assert_eq!(found, Timestamp::try_from(newest).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_program_answers_and_a_database_question_does_not() {
    let place = Place::with_files();
    let (_, _, scratch) = place.drill().await;
    let ask = async |question| {
        let check = UserCheck {
            name: CheckName::new("probe").unwrap(),
            question,
            timeout: SignedDuration::from_secs(10),
        };
        scratch.restored.answer(&Cx::unbounded(), &check, Timestamp::now()).await.unwrap().outcome
    };
    let command = |program: &str| Question::Command { argv: vec![program.to_owned()] };
    assert_eq!(ask(command("/bin/true")).await, CheckOutcome::Passed);
    assert_eq!(ask(command("/bin/false")).await, CheckOutcome::Failed);
    let rows = Question::MinimumRows { table: "t".to_owned(), rows: 1 };
    assert_eq!(ask(rows).await, CheckOutcome::Inconclusive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_goes_to_a_new_place_only_and_is_verified() {
    let place = Place::with_files();
    let (captured, reader) = place.capture().await;
    let deliver = async |to: &Path| {
        let to = NewTarget::Directory(to.to_owned());
        place.source().deliver(&Cx::unbounded(), &captured.witness, Arc::new(reader.clone()), &to).await
    };
    let target = place.root.path().join("restored");
    let delivered = deliver(&target).await.unwrap();
    assert!(delivered.findings.is_empty(), "{:?}", delivered.findings);
    assert_eq!(fs::read(target.join("etc/app.conf")).unwrap(), b"port = 1\n");
    let error = deliver(&target).await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Conflict, Some(FindingCode::LiveTarget)));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_roots_and_single_files_come_back_each_in_its_place() {
    let mut place = Place::with_files();
    let tree = place.tree();
    place.spec.paths =
        ["etc", "one", "two"].iter().map(|name| tree.join(name).to_str().unwrap().to_owned()).collect();
    let (captured, reports, _) = place.drill().await;
    assert_equal(&captured, &reports);
}

#[tokio::test]
async fn a_root_that_would_archive_something_else_is_refused() {
    let place = Place::with_files();
    let with = |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        FilesSource::new(FilesSpec { paths, ..place.spec.clone() }, place.root.path())
    };
    for hostile in
        [&["/"][..], &["relative"], &["/a/../b"], &[], &["/a", "/a/b"], &["/a/b", "/a"], &["/a", "/a/"]]
    {
        assert_eq!(with(hostile).unwrap_err().kind, ErrorKind::Refused, "{hostile:?}");
    }
    let capture = async |path: PathBuf| {
        let source = with(&[path.to_str().unwrap()]).unwrap();
        source.capture(&Cx::unbounded(), Arc::new(place.writer())).await.unwrap_err()
    };
    symlink(place.tree(), place.root.path().join("link")).unwrap();
    assert_eq!(capture(place.root.path().join("link")).await.kind, ErrorKind::Refused);
    assert_eq!(capture(place.root.path().join("absent")).await.kind, ErrorKind::NotFound);
}

/// The manifest lies in the copy; the witness, whose digest a receipt holds, says which one it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_was_edited_blames_the_copy() {
    let place = Place::with_files();
    let (captured, reader) = place.capture().await;
    let stored = reader.root().join(".seaworthy/manifest.tsv");
    let whole = fs::read_to_string(&stored).unwrap();
    assert_eq!(whole.lines().count() as u64, files(&captured.witness).totals.entries);
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let without_last = lines[..lines.len() - 1].concat();
    let other_mode = whole.replacen("f\t644", "f\t600", 1);
    assert_ne!(other_mode, whole);
    for forged in [without_last, other_mode, whole.trim_end().to_owned(), String::new(), "?\n".to_owned()] {
        fs::write(&stored, &forged).unwrap();
        let scratch = place.restore(&captured.witness, &reader).await;
        let error = scratch.restored.compare(&Cx::unbounded(), &captured.witness).await.unwrap_err();
        assert_eq!(error.code, Some(FindingCode::WitnessNotOurs), "{forged:?}");
        let error = scratch.restored.damage(&Cx::unbounded(), &captured.witness, 1).await.unwrap_err();
        assert_eq!(error.code, Some(FindingCode::WitnessNotOurs), "{forged:?}");
    }
    fs::remove_file(&stored).unwrap();
    let scratch = place.restore(&captured.witness, &reader).await;
    let error = scratch.restored.compare(&Cx::unbounded(), &captured.witness).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

/// A name that does not belong there leads the group of hard links: it is named, and so is every link that now differs.
#[tokio::test(flavor = "multi_thread")]
async fn a_planted_link_is_seen_in_its_group() {
    let place = Place::with_files();
    let (captured, reader) = place.capture().await;
    let scratch = place.restore(&captured.witness, &reader).await;
    fs::hard_link(scratch.tree.join("one"), scratch.tree.join("a-first")).unwrap();
    let reports = scratch.compare(&captured.witness).await;
    let found = codes(&reports);
    assert_eq!(found.iter().filter(|code| **code == FindingCode::FileLinks).count(), 2, "{reports:#?}");
    assert!(found.contains(&FindingCode::FileMissing));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_measurement_stops() {
    let place = Place::with_files();
    let (captured, _, scratch) = place.drill().await;
    let (cx, token) = Cx::unbounded().child();
    token.cancel();
    let error = scratch.restored.compare(&cx, &captured.witness).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Stopped(_)));
    let cx = Cx::unbounded().within(Duration::ZERO);
    let error = place.source().capture(&cx, Arc::new(place.writer())).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Stopped(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_reads_names_only() {
    let place = Place::with_files();
    let facts = place.source().probe(&Cx::unbounded()).await.unwrap();
    assert_eq!(facts.size_bytes, 9 + 1_300_000 + 6 + 6);
    assert!(facts.findings.is_empty() && facts.identity.starts_with("files:"), "{facts:?}");
}

/// The number of `nobody`.
const ORDINARY: u32 = 65534;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "carried out as an ordinary user by `an_ordinary_user_cannot_decide_owners`"]
async fn as_an_ordinary_user() {
    assert_eq!(rustix::process::geteuid().as_raw(), ORDINARY);
    let mut place = Place::new();
    place.spec.paths = vec![std::env::var("SEAWORTHY_TEST_TREE").unwrap()];
    let writer = Arc::new(place.writer());
    let captured = place.source().capture(&Cx::unbounded(), writer.clone()).await.unwrap();
    let reader = Arc::new(writer.commit().unwrap());
    assert!(!captured.is_complete, "a file of mode 0 cannot be read");
    assert_eq!(captured.findings[0].code, FindingCode::FileUnreadable);
    let sandbox = Arc::new(DirectorySandbox::new().unwrap());
    let restored =
        place.source().restore(&Cx::unbounded(), &captured.witness, reader, sandbox).await.unwrap();
    let reports = restored.compare(&Cx::unbounded(), &captured.witness).await.unwrap();
    let outcome = |name: &str| reports.iter().find(|report| report.name == name).unwrap();
    assert_eq!(outcome("owners").outcome, CheckOutcome::Inconclusive);
    assert_eq!(outcome("owners").findings[0].code, FindingCode::EnvPermission);
    for name in ["entries", "types-and-links", "content", "metadata", "hardlinks"] {
        assert_eq!(outcome(name).outcome, CheckOutcome::Passed, "{:?}", outcome(name));
    }
    assert_eq!(outcome("scope").outcome, CheckOutcome::Failed);
}

#[test]
fn an_ordinary_user_cannot_decide_owners() {
    use std::os::unix::process::CommandExt as _;
    let place = Place::with_files();
    let secret = place.tree().join("secret");
    fs::write(&secret, b"of root only").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(place.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Wherever this program was built, the other user may not be able to reach it.
    let program = place.root.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let ended = std::process::Command::new(program)
        .args(["--exact", "as_an_ordinary_user", "--ignored", "--nocapture"])
        .env("SEAWORTHY_TEST_TREE", place.tree())
        .uid(ORDINARY)
        .gid(ORDINARY)
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}
