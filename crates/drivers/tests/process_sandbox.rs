//! The process sandbox against hostile programs and a real PostgreSQL, as root and as an ordinary user.
//!
//! Its own harness, because the same binary is also the sandbox's keeper, init and probe, the hostile program, and the
//! owner that is killed. Every test runs as `root::name` and as `user::name`; the latter gives up root first.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that fails should say so where it stands"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use seaworthy_drivers::sandbox::process::{ProcessSandboxes, Settings};
use seaworthy_interface::cx::{Cx, Stop};
use seaworthy_interface::error::{DriverError, ErrorKind};
use seaworthy_interface::sandbox::{Exec, ExecOutcome, Sandbox, SandboxProvider as _};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::id::RunId;

/// `nobody`, on every system that we support.
const ORDINARY: u32 = 65534;
const HOSTILE: &str = "__hostile";
const OWNER: &str = "__owner";
const FORBIDDEN: &str = "__forbidden";
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

type Test = fn();

const TESTS: &[(&str, Test)] = &[
    (
        "a_sandbox_opens_proves_its_isolation_and_leaves_nothing",
        a_sandbox_opens_proves_its_isolation_and_leaves_nothing,
    ),
    ("a_sandbox_works_below_var_tmp", a_sandbox_works_below_var_tmp),
    ("a_program_gets_what_it_was_given_and_nothing_else", a_program_gets_what_it_was_given_and_nothing_else),
    ("a_descriptor_that_the_caller_leaked_is_closed", a_descriptor_that_the_caller_leaked_is_closed),
    ("a_listener_of_the_caller_cannot_be_reached", a_listener_of_the_caller_cannot_be_reached),
    (
        "files_and_processes_of_the_caller_cannot_be_reached",
        files_and_processes_of_the_caller_cannot_be_reached,
    ),
    ("ways_around_namespaces_are_closed", ways_around_namespaces_are_closed),
    ("a_stop_ends_a_program_and_all_that_it_started", a_stop_ends_a_program_and_all_that_it_started),
    ("a_program_that_ignores_its_signal_is_killed", a_program_that_ignores_its_signal_is_killed),
    (
        "a_link_planted_in_place_of_standard_input_is_not_followed",
        a_link_planted_in_place_of_standard_input_is_not_followed,
    ),
    ("a_fork_bomb_is_bounded_and_ends_with_its_program", a_fork_bomb_is_bounded_and_ends_with_its_program),
    (
        "a_disk_that_is_too_small_is_the_environments_fault",
        a_disk_that_is_too_small_is_the_environments_fault,
    ),
    (
        "a_program_that_fills_the_disk_is_stopped_before_it_is_full",
        a_program_that_fills_the_disk_is_stopped_before_it_is_full,
    ),
    ("a_missing_program_is_the_environments_fault", a_missing_program_is_the_environments_fault),
    (
        "a_scratch_directory_that_others_can_change_is_refused",
        a_scratch_directory_that_others_can_change_is_refused,
    ),
    ("a_path_too_long_for_a_socket_is_refused", a_path_too_long_for_a_socket_is_refused),
    ("giving_away_a_tree_follows_no_link", giving_away_a_tree_follows_no_link),
    ("trees_made_to_resist_are_removed", trees_made_to_resist_are_removed),
    (
        "what_a_killed_owner_left_is_reaped_and_nothing_else",
        what_a_killed_owner_left_is_reaped_and_nothing_else,
    ),
    (
        "postgres_runs_inside_and_answers_outside_and_its_superuser_stays_inside",
        postgres_runs_inside_and_answers_outside_and_its_superuser_stays_inside,
    ),
    ("a_keeper_that_is_killed_takes_everything_with_it", a_keeper_that_is_killed_takes_everything_with_it),
    ("memory_that_runs_out_is_the_environments_fault", memory_that_runs_out_is_the_environments_fault),
    ("what_a_killed_maker_left_half_done_is_reaped", what_a_killed_maker_left_half_done_is_reaped),
    ("what_keeps_a_machine_from_it_is_said_before", what_keeps_a_machine_from_it_is_said_before),
    ("sandboxes_opened_at_once_do_not_meet", sandboxes_opened_at_once_do_not_meet),
    ("a_hidden_program_is_empty_inside", a_hidden_program_is_empty_inside),
];

fn main() -> ExitCode {
    if let Some(code) = seaworthy_syscall::sandbox::enter() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(HOSTILE) => return hostile(&arguments[1..]),
        Some(OWNER) => return owner(Path::new(&arguments[1])),
        Some(FORBIDDEN) => return forbidden(Path::new(&arguments[1])),
        _ => {}
    }
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        // Something to lose: group `adm`, which may read logs.
        rustix::thread::set_thread_groups(&[rustix::fs::Gid::from_raw(4)]).unwrap();
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // As libtest prints it, for runners that give each test a process of its own. None is ignored.
        for mode in ["root", "user"].iter().filter(|_| !has("--ignored")) {
            for (name, _) in TESTS {
                println!("{mode}::{name}: test");
            }
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |full: &str| {
        let fits = |filter: &&String| {
            if has("--exact") { filter.as_str() == full } else { full.contains(filter.as_str()) }
        };
        filters.is_empty() || filters.iter().any(fits)
    };
    let mut failed = Vec::new();
    let mut ran = 0;
    for (mode, name, test) in
        ["root", "user"].iter().flat_map(|mode| TESTS.iter().map(move |(name, test)| (mode, name, test)))
    {
        let full = format!("{mode}::{name}");
        if !is_wanted(&full) {
            continue;
        }
        let begun = Instant::now();
        let passed = match (*mode, is_root) {
            ("user", true) => as_ordinary_user(&full),
            // Half of the mechanism is not tested then, and that is a failure to say, not a pass.
            ("root", false) => false,
            _ => std::panic::catch_unwind(test).is_ok(),
        };
        ran += 1;
        println!("test {full} ... {} ({:.2?})", if passed { "ok" } else { "FAILED" }, begun.elapsed());
        if !passed {
            failed.push(full);
        }
    }
    println!("{ran} ran, {} failed {failed:#?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn as_ordinary_user(full: &str) -> bool {
    let mut again = Command::new("/proc/self/exe");
    again.arg(full).env_clear().uid(ORDINARY).gid(ORDINARY).current_dir("/");
    again.status().is_ok_and(|status| status.success())
}

// ---- the hostile program, inside -----------------------------------------------------------------------------------

fn hostile(arguments: &[String]) -> ExitCode {
    let argument = arguments.get(1).map_or("", String::as_str);
    let says = |result: std::io::Result<()>| match result {
        Ok(()) => println!("REACHED"),
        Err(error) => println!("refused: {error}"),
    };
    match arguments[0].as_str() {
        "connect" => says(std::net::TcpStream::connect(argument).map(|_| ())),
        "connect-unix" => says(UnixStream::connect(argument).map(|_| ())),
        "read" => says(fs::read(argument).map(|_| ())),
        "signal" => {
            let pid = rustix::process::Pid::from_raw(argument.parse().unwrap()).unwrap();
            says(rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(Into::into));
        }
        "look" => {
            let list = |path: &str| {
                let mut names: Vec<_> =
                    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                names.sort();
                format!("{names:?}")
            };
            println!("cwd {}", std::env::current_dir().unwrap().display());
            println!("env {:?}", std::env::vars().collect::<Vec<_>>());
            println!("arguments {:?}", &arguments[1..]);
            let mut descriptors: Vec<i32> = fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().ok())
                .collect();
            descriptors.sort_unstable();
            println!("descriptors {descriptors:?}");
            println!("umask {:o}", rustix::process::umask(rustix::fs::Mode::empty()).as_raw_mode());
            println!("oom {}", fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim());
            println!("home {:?} run {} var {}", fs::read_dir("/home").is_ok(), list("/run"), list("/var"));
            println!("write /usr {:?}", fs::write("/usr/x", b"").map_err(|error| error.kind()));
            println!("write / {:?}", fs::write("/x", b"").map_err(|error| error.kind()));
            println!("write /etc {:?}", fs::write("/etc/passwd", b"").map_err(|error| error.kind()));
            let mut input = String::new();
            std::io::stdin().read_to_string(&mut input).unwrap();
            println!("input {input:?}");
        }
        "vsock" => says(
            rustix::net::socket(rustix::net::AddressFamily::VSOCK, rustix::net::SocketType::STREAM, None)
                .map(|_| ())
                .map_err(Into::into),
        ),
        "program" => {
            let mut words = argument.split(' ');
            let status = Command::new(words.next().unwrap()).args(words).status();
            says(status.and_then(|status| {
                if status.success() { Ok(()) } else { Err(std::io::Error::other(status.to_string())) }
            }));
        }
        "print" => {
            for _ in 0..argument.parse::<usize>().unwrap() {
                print!("0123456789");
            }
            std::io::stdout().flush().unwrap();
        }
        "exit" => return ExitCode::from(argument.parse::<u8>().unwrap()),
        "sleep" => std::thread::sleep(Duration::from_secs(600)),
        // Leaves a child in a session of its own behind, as a daemon would.
        "orphan" => {
            let mut orphan = Command::new("/usr/bin/setsid").args(["/bin/sleep", argument]).spawn().unwrap();
            orphan.wait().unwrap();
        }
        "stubborn" => {
            Command::new("/bin/sh")
                .args(["-c", "trap '' TERM INT; while :; do sleep 0.1; done"])
                .status()
                .unwrap();
        }
        "fork-bomb" => {
            let mut children = Vec::new();
            let error = loop {
                match Command::new("/bin/sleep").arg("600").spawn() {
                    // An end, so that a broken bound fails the test and not the machine.
                    Ok(_) if children.len() == 500 => break std::io::Error::other("nothing stopped it"),
                    Ok(child) => children.push(child),
                    Err(error) => break error,
                }
            };
            println!("{} {error}", children.len());
        }
        "fill" => {
            // An end, for the same reason.
            for number in 0..32 {
                let mut file = fs::File::create(format!("fill-{number}")).unwrap();
                for _ in 0..64 {
                    if file.write_all(&[7; 1 << 20]).is_err() {
                        return ExitCode::from(28);
                    }
                }
            }
        }
        // A tree that is deeper than a path may be long, with directories that nobody may enter.
        "resist" => {
            for level in 0..1000 {
                fs::create_dir("deep").unwrap();
                if level % 20 == 0 {
                    fs::write("deep/file", [1; 5000]).unwrap();
                }
                std::env::set_current_dir("deep").unwrap();
            }
            let root = PathBuf::from(argument);
            fs::create_dir_all(root.join("closed/inner")).unwrap();
            fs::write(root.join("closed/inner/file"), b"x").unwrap();
            symlink("/etc", root.join("closed/link")).unwrap();
            for directory in ["closed/inner", "closed"] {
                fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o000)).unwrap();
            }
            fs::set_permissions(&root, fs::Permissions::from_mode(0o500)).unwrap();
        }
        other => panic!("unknown act {other}"),
    }
    ExitCode::SUCCESS
}

/// Opens a sandbox, starts something in it, says so, and waits to be killed.
fn owner(scratch: &Path) -> ExitCode {
    run(async {
        let sandbox = open(&Settings::new(scratch)).await.unwrap();
        let _program = sandbox.spawn(&cx(), act(&["orphan", MARK_OF_OWNER])).await.unwrap();
        println!("{}", sandbox.root().display());
        std::io::stdout().flush().unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
    });
    ExitCode::SUCCESS
}

/// Says what would keep a sandbox from opening.
fn forbidden(scratch: &Path) -> ExitCode {
    for finding in run(ProcessSandboxes::new(Settings::new(scratch)).probe(&cx())).unwrap() {
        println!("{finding}");
    }
    ExitCode::SUCCESS
}

/// Seconds to sleep that nobody else sleeps: how the orphan is found from outside.
const MARK_OF_OWNER: &str = "59823";
const MARK_OF_STOP: &str = "59824";
const MARK_OF_KEEPER: &str = "59825";

// ---- outside ---------------------------------------------------------------------------------------------------------

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

fn cx() -> Cx {
    Cx::unbounded().within(Duration::from_secs(120))
}

fn scratch() -> (tempfile::TempDir, Settings) {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::new(directory.path().join("s"));
    (directory, settings)
}

async fn open(settings: &Settings) -> Result<Arc<dyn Sandbox>, DriverError> {
    ProcessSandboxes::new(settings.clone()).open(&cx(), &RunId("drill-test".into()), 1 << 20).await
}

fn act(arguments: &[&str]) -> Exec {
    let argv = ["/proc/self/exe", HOSTILE].iter().chain(arguments).map(|text| (*text).to_owned()).collect();
    Exec { argv, output_bytes_max: 1 << 20, ..Exec::default() }
}

async fn told(sandbox: &dyn Sandbox, exec: Exec) -> String {
    let ExecOutcome { status, stdout, stderr, .. } = sandbox.exec(&cx(), exec).await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status, 0, "{stdout} {stderr}");
    stdout.into_owned()
}

/// Processes on this machine that have each of `marks` among their arguments.
fn pids_with(marks: &[&str]) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let entry = entry.unwrap();
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
        let has =
            |mark: &&str| arguments.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes());
        if marks.iter().all(has) {
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        }
    }
    found
}

fn processes_with(mark: &str) -> Vec<i32> {
    pids_with(&[mark])
}

/// A process that does not outlive a test that fails.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn a_sandbox_works_below_var_tmp() {
    run(async {
        // Inside, /var/tmp is a link to /tmp wherever the private directory does not lie below it.
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let sandbox = open(&Settings::new(directory.path().join("s"))).await.unwrap();
        assert!(sandbox.root().starts_with("/var/tmp"));
        sandbox.close(&cx()).await.unwrap();
    });
}

fn a_sandbox_opens_proves_its_isolation_and_leaves_nothing() {
    run(async {
        let (_directory, settings) = scratch();
        let begun = Instant::now();
        let sandbox = open(&settings).await.unwrap();
        println!("open took {:.0?}", begun.elapsed());
        let facts = sandbox.facts();
        println!("{facts:#?}");
        assert_eq!(facts.mode, if is_root() { "root" } else { "user-namespace" });
        assert_eq!(facts.uid, ORDINARY);
        assert_eq!(facts.interfaces, Vec::<String>::new());
        assert_eq!(facts.inherited_descriptors, 0);
        assert!(facts.refused_connections.len() >= 8);
        let root = fs::metadata(sandbox.root()).unwrap();
        assert_eq!((root.uid(), root.mode() & 0o7777), (ORDINARY, 0o700));
        fs::write(sandbox.root().join("file"), vec![1; 100_000]).unwrap();
        let outer = sandbox.root().parent().unwrap().to_owned();
        assert!(sandbox.close(&cx()).await.unwrap() >= 100_000);
        assert!(!outer.exists());
        assert_eq!(sandbox.close(&cx()).await.unwrap(), 0);
        let refused = sandbox.exec(&cx(), act(&["exit", "0"])).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
    });
}

fn a_program_gets_what_it_was_given_and_nothing_else() {
    run(async {
        let (_directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        let input = settings.scratch.join("input");
        fs::write(&input, "hello").unwrap();
        fs::set_permissions(&input, fs::Permissions::from_mode(0o600)).unwrap();
        let mut exec = act(&["look", "a b", "$(id)", ";ls"]);
        exec.env = vec![("KEY".into(), "va lue".into())];
        exec.stdin = Some(input);
        let said = told(&*sandbox, exec).await;
        let root = sandbox.root().display();
        let expected = format!(
            "cwd {root}\nenv [(\"KEY\", \"va lue\")]\narguments [\"a b\", \"$(id)\", \";ls\"]\ndescriptors [0, 1, 2, 3]\n\
             umask 77\noom 1000\nhome false run [] var [\"tmp\"]\nwrite /usr Err(ReadOnlyFilesystem)\n\
             write / Err(ReadOnlyFilesystem)\nwrite /etc Err(ReadOnlyFilesystem)\ninput \"hello\"\n"
        );
        // Descriptor 3 is the listing's own.
        let said = said.replace("PermissionDenied", "ReadOnlyFilesystem");
        assert_eq!(said, expected);

        let mut loud = act(&["print", "100000"]);
        loud.output_bytes_max = 25;
        let outcome = sandbox.exec(&cx(), loud).await.unwrap();
        assert_eq!(outcome.stdout, b"0123456789012345678901234");
        assert_eq!(outcome.dropped_bytes, 1_000_000 - 25);
        assert_eq!(sandbox.exec(&cx(), act(&["exit", "7"])).await.unwrap().status, 7);
        sandbox.close(&cx()).await.unwrap();
    });
}

fn a_descriptor_that_the_caller_leaked_is_closed() {
    run(async {
        let (_directory, settings) = scratch();
        // What started the tests may have leaked some of its own.
        let closed = |sandbox: &dyn Sandbox| -> usize {
            let prefix = "descriptors closed before the start: ";
            sandbox
                .facts()
                .limits
                .iter()
                .find_map(|limit| limit.strip_prefix(prefix))
                .unwrap()
                .parse()
                .unwrap()
        };
        let sandbox = open(&settings).await.unwrap();
        let before = closed(&*sandbox);
        sandbox.close(&cx()).await.unwrap();
        let leaked = fs::File::open("/etc/hostname").unwrap();
        rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
        let sandbox = open(&settings).await.unwrap();
        assert_eq!(closed(&*sandbox), before + 1);
        assert_eq!(sandbox.facts().inherited_descriptors, 0);
        let said = told(&*sandbox, act(&["look"])).await;
        assert!(said.contains("descriptors [0, 1, 2, 3]\n"), "{said}");
        sandbox.close(&cx()).await.unwrap();
    });
}

fn a_listener_of_the_caller_cannot_be_reached() {
    run(async {
        let (directory, settings) = scratch();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let path = directory.path().join("socket");
        let _unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let sandbox = open(&settings).await.unwrap();
        for (what, target) in [("connect", address.as_str()), ("connect-unix", path.to_str().unwrap())] {
            let exec = act(&[what, target]);
            // The positive control: the same program outside gets through.
            let outside = Command::new("/proc/self/exe").args(&exec.argv[1..]).output().unwrap();
            assert_eq!(outside.stdout, b"REACHED\n");
            let said = told(&*sandbox, exec).await;
            assert!(said.starts_with("refused"), "{what}: {said}");
        }
        sandbox.close(&cx()).await.unwrap();
    });
}

fn files_and_processes_of_the_caller_cannot_be_reached() {
    run(async {
        let (directory, settings) = scratch();
        let private = directory.path().join("private");
        fs::write(&private, "secret").unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
        let mut bystander =
            Ended(Command::new("/bin/sleep").arg("600").stdout(Stdio::null()).spawn().unwrap());
        let pid = bystander.0.id().to_string();
        let sandbox = open(&settings).await.unwrap();
        let environ = format!("/proc/{pid}/environ");
        let marker = sandbox.root().parent().unwrap().join("owner");
        for (what, target) in [
            ("read", private.to_str().unwrap()),
            ("read", environ.as_str()),
            ("read", marker.to_str().unwrap()),
            ("read", "/etc/shadow"),
            ("read", "/proc/1/environ"),
            ("signal", pid.as_str()),
        ] {
            let said = told(&*sandbox, act(&[what, target])).await;
            assert!(said.starts_with("refused"), "{what} {target}: {said}");
        }
        assert!(bystander.0.try_wait().unwrap().is_none());
        // The positive control: outside, each of ours is within reach.
        for (what, target) in
            [("read", private.to_str().unwrap()), ("read", environ.as_str()), ("signal", pid.as_str())]
        {
            let outside = Command::new("/proc/self/exe").args([HOSTILE, what, target]).output().unwrap();
            assert_eq!(outside.stdout, b"REACHED\n", "{what} {target}");
        }
        bystander.0.wait().unwrap();
        sandbox.close(&cx()).await.unwrap();
    });
}

fn ways_around_namespaces_are_closed() {
    run(async {
        let (_directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        let new_user = "/usr/bin/unshare --user --map-root-user /bin/true";
        for (what, target) in [("vsock", ""), ("program", new_user)] {
            let exec = act(&[what, target]);
            let outside = Command::new("/proc/self/exe").args(&exec.argv[1..]).output().unwrap();
            assert_eq!(outside.stdout, b"REACHED\n", "{what}");
            let said = told(&*sandbox, exec).await;
            assert!(said.starts_with("refused"), "{what}: {said}");
        }
        // A filter that refuses everything would pass the above.
        assert_eq!(told(&*sandbox, act(&["program", "/bin/true"])).await, "REACHED\n");
        sandbox.close(&cx()).await.unwrap();
    });
}

fn a_stop_ends_a_program_and_all_that_it_started() {
    run(async {
        let (_directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        let late = cx().within(Duration::from_millis(700));
        let begun = Instant::now();
        let stopped = sandbox.exec(&late, act(&["orphan", MARK_OF_STOP])).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "it took force: {:?}", begun.elapsed());
        assert_eq!(stopped.kind, ErrorKind::Stopped(Stop::DeadlineExceeded));
        assert_eq!(processes_with(MARK_OF_STOP), Vec::<i32>::new());

        let (cancellable, token) = cx().child();
        let cancel = async {
            wait_until("the orphan runs", || processes_with(MARK_OF_STOP).len() > 1);
            token.cancel();
        };
        let (stopped, ()) = tokio::join!(
            async {
                tokio::task::yield_now().await;
                sandbox.exec(&cancellable, act(&["orphan", MARK_OF_STOP])).await
            },
            async {
                tokio::time::sleep(Duration::from_millis(400)).await;
                cancel.await;
            }
        );
        assert_eq!(stopped.unwrap_err().kind, ErrorKind::Stopped(Stop::Cancelled));
        assert_eq!(processes_with(MARK_OF_STOP), Vec::<i32>::new());

        // Closing ends what runs, and forgetting a program ends it too.
        let forgotten = sandbox.spawn(&cx(), act(&["orphan", MARK_OF_STOP])).await.unwrap();
        drop(forgotten);
        wait_until("the forgotten program is gone", || processes_with(MARK_OF_STOP).is_empty());
        let mut kept = sandbox.spawn(&cx(), act(&["orphan", MARK_OF_STOP])).await.unwrap();
        assert!(kept.is_running());
        sandbox.close(&cx()).await.unwrap();
        assert!(!kept.is_running());
        assert_eq!(processes_with(MARK_OF_STOP), Vec::<i32>::new());
    });
}

fn a_keeper_that_is_killed_takes_everything_with_it() {
    run(async {
        let (_directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        let mut program = sandbox.spawn(&cx(), act(&["orphan", MARK_OF_KEEPER])).await.unwrap();
        wait_until("the orphan runs", || processes_with(MARK_OF_KEEPER).len() > 1);
        let keepers = pids_with(&[seaworthy_syscall::sandbox::VERB_KEEPER, sandbox.root().to_str().unwrap()]);
        assert_eq!(keepers.len(), 1);
        let keeper = rustix::process::Pid::from_raw(keepers[0]).unwrap();
        rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
        wait_until("everything is gone", || processes_with(MARK_OF_KEEPER).is_empty());
        wait_until("its end is seen", || !program.is_running());
        assert_eq!(program.stop(&cx(), 2, Duration::ZERO).await.unwrap(), 128 + 9);
        sandbox.close(&cx()).await.unwrap();
    });
}

fn memory_that_runs_out_is_the_environments_fault() {
    run(async {
        let (_directory, mut settings) = scratch();
        settings.memory_reserve_bytes = 1 << 60;
        let sandbox = open(&settings).await.unwrap_err();
        assert_eq!((sandbox.kind, sandbox.code), (ErrorKind::Exhausted, Some(FindingCode::EnvOther)));
        assert_eq!(fs::read_dir(&settings.scratch).unwrap().count(), 0);
    });
}

fn a_program_that_ignores_its_signal_is_killed() {
    run(async {
        let (_directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        let mut asleep = sandbox.spawn(&cx(), act(&["sleep"])).await.unwrap();
        assert_eq!(asleep.stop(&cx(), 15, Duration::from_secs(20)).await.unwrap(), 128 + 15);
        assert!(!asleep.is_running());
        let mut exec = act(&[]);
        exec.argv = ["/bin/sh", "-c", "trap '' TERM; echo deaf >&2; while :; do sleep 0.05; done"]
            .map(String::from)
            .into();
        let mut stubborn = sandbox.spawn(&cx(), exec).await.unwrap();
        wait_until("it is deaf", || stubborn.stderr_tail() == b"deaf\n");
        assert_eq!(stubborn.stop(&cx(), 15, Duration::from_millis(300)).await.unwrap(), 128 + 9);
        assert!(!stubborn.is_running());
        sandbox.close(&cx()).await.unwrap();
    });
}

fn a_link_planted_in_place_of_standard_input_is_not_followed() {
    run(async {
        let (directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        let secret = directory.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, sandbox.root().join("input")).unwrap();
        let mut exec = act(&["look"]);
        exec.stdin = Some(sandbox.root().join("input"));
        let error = sandbox.exec(&cx(), exec).await.unwrap_err();
        assert_eq!(error.code, Some(FindingCode::EnvOther), "{error:?}");
        sandbox.close(&cx()).await.unwrap();
    });
}

fn a_fork_bomb_is_bounded_and_ends_with_its_program() {
    run(async {
        let (_directory, mut settings) = scratch();
        settings.limits.processes = 60;
        let sandbox = open(&settings).await.unwrap();
        let said = told(&*sandbox, act(&["fork-bomb"])).await;
        let (count, error) = said.split_once(' ').unwrap();
        let count: usize = count.parse().unwrap();
        assert!((10..60).contains(&count), "{said}");
        assert!(error.contains("os error 11"), "{said}");
        sandbox.close(&cx()).await.unwrap();
    });
}

fn a_disk_that_is_too_small_is_the_environments_fault() {
    run(async {
        let (_directory, settings) = scratch();
        let provider = ProcessSandboxes::new(settings.clone());
        let error = provider.open(&cx(), &RunId("drill-test".into()), 1 << 60).await.unwrap_err();
        assert_eq!((error.kind, error.code), (ErrorKind::Exhausted, Some(FindingCode::EnvDisk)));
        assert_eq!(fs::read_dir(&settings.scratch).unwrap().count(), 0);
    });
}

fn a_program_that_fills_the_disk_is_stopped_before_it_is_full() {
    run(async {
        let (directory, mut settings) = scratch();
        let room = rustix::fs::statvfs(directory.path()).unwrap();
        let free = room.f_bavail * room.f_frsize;
        // As if the disk ended 300 MB from here.
        settings.reserve_bytes = free - 300_000_000;
        let sandbox = open(&settings).await.unwrap();
        let error = sandbox.exec(&cx(), act(&["fill"])).await.unwrap_err();
        assert_eq!((error.kind, error.code), (ErrorKind::Exhausted, Some(FindingCode::EnvDisk)), "{error:?}");
        let again = sandbox.exec(&cx(), act(&["exit", "0"])).await.unwrap_err();
        assert_eq!(again.code, Some(FindingCode::EnvDisk));
        let removed = sandbox.close(&cx()).await.unwrap();
        println!("filled {removed} bytes");
        assert!(removed > 100_000_000);
        // It would have written 2 GiB.
        assert!(removed < 1_500_000_000);
    });
}

fn a_missing_program_is_the_environments_fault() {
    run(async {
        let (_directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        for (program, code) in [
            ("/usr/bin/no-such-program", Some(FindingCode::EnvBinary)),
            ("/etc/passwd", Some(FindingCode::EnvPermission)),
        ] {
            let exec = || Exec { argv: vec![program.into()], ..Exec::default() };
            assert_eq!(sandbox.exec(&cx(), exec()).await.unwrap_err().code, code);
            assert_eq!(sandbox.spawn(&cx(), exec()).await.unwrap_err().code, code);
        }
        let relative = Exec { argv: vec!["sh".into()], ..Exec::default() };
        assert_eq!(sandbox.exec(&cx(), relative).await.unwrap_err().kind, ErrorKind::Refused);
        sandbox.close(&cx()).await.unwrap();
    });
}

fn a_scratch_directory_that_others_can_change_is_refused() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let open_one = make("open", 0o777);
        let below = make("loose", 0o777).join("s");
        let link = directory.path().join("link");
        symlink(make("true", 0o700), &link).unwrap();
        for scratch in [open_one, below, link, PathBuf::from("relative")] {
            let error = open(&Settings::new(&scratch)).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused, "{scratch:?} {error:?}");
        }
    });
}

fn a_path_too_long_for_a_socket_is_refused() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let error = open(&Settings::new(directory.path().join("x".repeat(70)))).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error:?}");
    });
}

fn giving_away_a_tree_follows_no_link() {
    run(async {
        let (directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "").unwrap();
        let restored = sandbox.root().join("restored");
        fs::create_dir_all(restored.join("a/b")).unwrap();
        fs::write(restored.join("a/b/file"), "").unwrap();
        symlink(&outside, restored.join("a/link")).unwrap();
        symlink(outside.join("file"), restored.join("a/link-to-file")).unwrap();
        sandbox.own(&cx(), &restored).await.unwrap();
        for path in ["", "a", "a/b", "a/b/file", "a/link"] {
            assert_eq!(fs::symlink_metadata(restored.join(path)).unwrap().uid(), ORDINARY, "{path}");
        }
        let me = rustix::process::geteuid().as_raw();
        for path in [outside.clone(), outside.join("file")] {
            assert_eq!(fs::symlink_metadata(path).unwrap().uid(), me);
        }
        if is_root() {
            for escape in [outside.clone(), restored.join("a/link/file"), restored.join("../../owner")] {
                assert!(sandbox.own(&cx(), &escape).await.is_err(), "{escape:?}");
            }
        }
        sandbox.close(&cx()).await.unwrap();
        assert!(outside.join("file").exists());
    });
}

fn trees_made_to_resist_are_removed() {
    run(async {
        let (_directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        let root = sandbox.root().to_owned();
        told(&*sandbox, act(&["resist", root.to_str().unwrap()])).await;
        let bytes = sandbox.close(&cx()).await.unwrap();
        assert!(bytes >= 50 * 5000, "{bytes}");
        assert!(!root.exists());
        assert!(Path::new("/etc/passwd").exists());
    });
}

fn what_a_killed_owner_left_is_reaped_and_nothing_else() {
    let (_directory, settings) = scratch();
    let mut owner = Command::new("/proc/self/exe");
    owner.arg(OWNER).arg(&settings.scratch).stdout(Stdio::piped());
    let mut owner = Ended(owner.spawn().unwrap());
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(owner.0.stdout.take().unwrap()), &mut said)
        .unwrap();
    let root = PathBuf::from(said.trim());
    wait_until("the orphan runs", || processes_with(MARK_OF_OWNER).len() > 1);
    run(async {
        let provider = ProcessSandboxes::new(settings.clone());
        let foreign = settings.scratch.join("precious");
        fs::create_dir(&foreign).unwrap();
        let unmarked = settings.scratch.join("sw-0123456789");
        fs::create_dir(&unmarked).unwrap();
        fs::write(unmarked.join("file"), "").unwrap();
        let ours = open(&settings).await.unwrap();
        // While its owner lives nothing is touched.
        assert_eq!(provider.reap(&cx(), &[]).await.unwrap(), 0);
        assert!(root.exists());

        owner.0.kill().unwrap();
        owner.0.wait().unwrap();
        wait_until("what the owner started is gone", || processes_with(MARK_OF_OWNER).is_empty());
        wait_until("keeper and init are gone", || processes_with(root.to_str().unwrap()).is_empty());

        assert_eq!(provider.reap(&cx(), &[RunId("drill-test".into())]).await.unwrap(), 0);
        assert!(root.exists(), "a live run was reaped");
        assert_eq!(provider.reap(&cx(), &[]).await.unwrap(), 1);
        assert!(!root.exists());
        assert!(foreign.exists() && unmarked.join("file").exists() && ours.root().exists());

        // Forgotten in this process: reaped too.
        let root = ours.root().to_owned();
        drop(ours);
        wait_until("the guard has let go", || run_reap(&provider) == 1);
        assert!(!root.exists());
    });
}

fn what_a_killed_maker_left_half_done_is_reaped() {
    run(async {
        let (_directory, settings) = scratch();
        let provider = ProcessSandboxes::new(settings.clone());
        open(&settings).await.unwrap().close(&cx()).await.unwrap();
        let make = |name: &str, marker: Option<&str>| {
            let path = settings.scratch.join(name);
            fs::create_dir(&path).unwrap();
            if let Some(marker) = marker {
                fs::write(path.join("owner"), marker).unwrap();
            }
            path
        };
        // Process 1 lives, and did not start at tick 99999999999; the boot is this one.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let of = |pid: u32, ticks: u64| {
            let boot = boot.trim();
            format!(r#"{{"version":1,"run":"drill-x","pid":{pid},"start_ticks":{ticks},"boot":"{boot}"}}"#)
        };
        let dead = make(".sw-new-00000000a1", Some(&of(1, 99_999_999_999)));
        let unmarked = make(".sw-new-00000000a2", None);
        let torn = make(".sw-new-00000000a3", Some("{\"vers"));
        let empty = make("sw-00000000b2", Some(""));
        let ticks = seaworthy_syscall::sandbox::probe::start_time(1).unwrap();
        let alive = make("sw-00000000b3", Some(&of(1, ticks)));
        let half = [unmarked, torn, empty];
        let live = [RunId("drill-x".into())];
        // Whoever makes one holds a lock: each of them could be his.
        let making = fs::File::open(&settings.scratch).unwrap();
        making.lock_shared().unwrap();
        assert_eq!(provider.reap(&cx(), &live).await.unwrap(), 0);
        assert!(dead.exists() && alive.exists() && half.iter().all(|path| path.exists()));
        drop(making);
        // Nobody makes one any more, however young they are.
        assert_eq!(provider.reap(&cx(), &live).await.unwrap(), 3);
        assert!(dead.exists() && alive.exists() && half.iter().all(|path| !path.exists()));
        assert_eq!(provider.reap(&cx(), &[]).await.unwrap(), 1);
        assert!(!dead.exists() && alive.exists());
    });
}

fn what_keeps_a_machine_from_it_is_said_before() {
    let (_directory, settings) = scratch();
    run(async {
        let provider = ProcessSandboxes::new(settings.clone());
        assert_eq!(provider.probe(&cx()).await.unwrap(), Vec::new());
        assert_eq!(fs::read_dir(&settings.scratch).unwrap().count(), 0);
        let unknown = Settings { user: "no-such-user".into(), reserve_bytes: 1 << 60, ..settings.clone() };
        let found = ProcessSandboxes::new(unknown).probe(&cx()).await.unwrap();
        let expected = if is_root() { FindingCode::EnvPermission } else { FindingCode::EnvDisk };
        assert_eq!(found[0].code, expected, "{found:?}");
    });
    // An ordinary user on a machine that lets nobody make a user namespace.
    // This binary is its standard input: the only way to it that holds wherever it was built.
    let again = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec /proc/self/fd/0 {FORBIDDEN} {}",
        settings.scratch.display()
    );
    let user = ["--user", "--map-user=65534", "--map-group=65534", "--keep-caps", "/bin/sh", "-c", &again];
    let this = fs::File::open("/proc/self/exe").unwrap();
    let output = Command::new("/usr/bin/unshare").args(user).stdin(this).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("ENV-NAMESPACE"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("sysctl -w user.max_user_namespaces"), "{said}");
}

fn sandboxes_opened_at_once_do_not_meet() {
    run(async {
        let (_directory, mut settings) = scratch();
        let tools = settings.scratch.parent().unwrap().join("tools");
        fs::create_dir(&tools).unwrap();
        fs::set_permissions(&tools, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy("/bin/true", tools.join("true")).unwrap();
        settings.read_only.push(tools.clone());
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let settings = settings.clone();
            opening.spawn(async move { open(&settings).await.unwrap() });
        }
        let sandboxes = opening.join_all().await;
        for (number, sandbox) in sandboxes.iter().enumerate() {
            assert_eq!(sandbox.facts().inherited_descriptors, 0);
            fs::write(sandbox.root().join("file"), "").unwrap();
            let neighbour = sandboxes[(number + 1) % sandboxes.len()].root().join("file");
            let said = told(&**sandbox, act(&["read", neighbour.to_str().unwrap()])).await;
            assert!(said.starts_with("refused"), "{said}");
            let shown = Exec { argv: vec![tools.join("true").to_str().unwrap().into()], ..Exec::default() };
            told(&**sandbox, shown).await;
        }
        for sandbox in sandboxes {
            sandbox.close(&cx()).await.unwrap();
        }
        assert_eq!(fs::read_dir(&settings.scratch).unwrap().count(), 0);
    });
}

/// A program of the system that is not to be found is there by name, and empty.
fn a_hidden_program_is_empty_inside() {
    run(async {
        let (_directory, mut settings) = scratch();
        let hidden = fs::canonicalize("/usr/bin/env").unwrap();
        let is_there = |path: &Path| Exec {
            argv: vec!["/usr/bin/test".into(), "-s".into(), path.to_str().unwrap().into()],
            ..Exec::default()
        };
        let before = open(&settings).await.unwrap();
        assert_eq!(before.exec(&cx(), is_there(&hidden)).await.unwrap().status, 0);
        before.close(&cx()).await.unwrap();
        settings.hidden.extend([hidden.clone(), "/usr/bin/no-such-program".into()]);
        let sandbox = open(&settings).await.unwrap();
        assert_eq!(sandbox.exec(&cx(), is_there(&hidden)).await.unwrap().status, 1);
        assert_eq!(sandbox.exec(&cx(), is_there(Path::new("/usr/bin/test"))).await.unwrap().status, 0);
        sandbox.close(&cx()).await.unwrap();
        assert!(fs::metadata(&hidden).unwrap().len() > 0, "outside it is as it was");
    });
}

fn run_reap(provider: &ProcessSandboxes) -> usize {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(provider.reap(&cx(), &[])))
        .unwrap()
}

fn postgres_runs_inside_and_answers_outside_and_its_superuser_stays_inside() {
    run(async {
        let (directory, settings) = scratch();
        let sandbox = open(&settings).await.unwrap();
        let root = sandbox.root().to_str().unwrap().to_owned();
        let tool = |name: &str, arguments: &[&str]| Exec {
            argv: std::iter::once(format!("{POSTGRES}/{name}"))
                .chain(arguments.iter().map(|text| (*text).to_owned()))
                .collect(),
            output_bytes_max: 1 << 20,
            ..Exec::default()
        };
        let data = format!("{root}/data");
        let begun = Instant::now();
        told(
            &*sandbox,
            tool(
                "initdb",
                &["-N", "-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"],
            ),
        )
        .await;
        println!("initdb took {:.0?}", begun.elapsed());
        let begun = Instant::now();
        let socket = format!("unix_socket_directories={root}");
        let arguments = ["-D", &data, "-c", &socket, "-c", "listen_addresses=", "-c", "fsync=off"];
        let mut server = sandbox.spawn(&cx(), tool("postgres", &arguments)).await.unwrap();
        let path = format!("{root}/.s.PGSQL.5432");
        wait_until("the server answers outside", || {
            assert!(server.is_running(), "{}", String::from_utf8_lossy(&server.stderr_tail()));
            answers(&path)
        });
        println!("start took {:.0?}", begun.elapsed());

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let private = directory.path().join("private");
        fs::write(&private, "topsecret").unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
        let private = private.display();
        let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo leak >&3");
        let sql =
            |sql: &str| tool("psql", &["-X", "-h", &root, "-U", "postgres", "-d", "postgres", "-Atc", sql]);
        // A superuser may run programs: it works, and that is why it must not matter.
        let ran = told(&*sandbox, sql("COPY (SELECT 1) TO PROGRAM '/bin/cat > ran'")).await;
        assert_eq!(ran, "COPY 1\n");
        assert!(Path::new(&format!("{data}/ran")).exists());
        for hostile in [
            format!("COPY (SELECT 1) TO PROGRAM '/bin/bash -c \"{connect}\"'"),
            format!("COPY (SELECT 1) TO PROGRAM '/bin/cat {private}'"),
            format!("SELECT pg_read_file('{private}')"),
            "SELECT lo_export(lo_from_bytea(0, 'x'), '/usr/lib/x')".to_owned(),
        ] {
            let outcome = sandbox.exec(&cx(), sql(&hostile)).await.unwrap();
            let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
            assert_eq!(outcome.status, 1, "{hostile}: {said}");
            assert!(said.contains("ERROR") && !said.contains("topsecret"), "{hostile}: {said}");
        }
        // As an ordinary user the way to the private directory is its own, inside; what it writes there stays there.
        let write = format!("COPY (SELECT 1) TO '{}/written'", directory.path().display());
        sandbox.exec(&cx(), sql(&write)).await.unwrap();
        assert!(!directory.path().join("written").exists());
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        // The same words outside do get through, so their failure inside means something.
        assert!(Command::new("/bin/bash").args(["-c", &connect]).status().unwrap().success());
        listener.accept().unwrap();

        // SIGINT: fast shutdown.
        assert_eq!(server.stop(&cx(), 2, Duration::from_secs(30)).await.unwrap(), 0);
        assert!(sandbox.close(&cx()).await.unwrap() > 10 << 20);
    });
}

/// Whether a PostgreSQL server answers a start-up message on this socket.
fn answers(path: &str) -> bool {
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let mut message = Vec::new();
    message.extend_from_slice(&u32::try_from(8 + parameters.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&0x0003_0000_u32.to_be_bytes());
    message.extend_from_slice(parameters);
    let mut kind = [0];
    stream.write_all(&message).is_ok() && stream.read_exact(&mut kind).is_ok() && kind == *b"R"
}
