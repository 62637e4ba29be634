//! A network that fails between the product and its source: whatever breaks, nothing is called a copy that is not one, the run
//! ends by itself, and the next one needs no human.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use seaworthy_testkit::components::restics;
use seaworthy_testkit::estate::Dice;
use seaworthy_testkit::postgres::{Server, shop};
use seaworthy_testkit::product::Product;
use seaworthy_testkit::proxy::{Fault, FaultProxy};

const PROGRAM: &str = env!("CARGO_BIN_EXE_seaworthy");

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Restores the newest copy with stock tools into a new database, and says what is in it.
fn restored(product: &Product, server: &Server) -> String {
    let place = server.path().join("back");
    if place.exists() {
        std::fs::remove_dir_all(&place).unwrap();
    }
    let restic = &restics().unwrap()[0];
    product.restic(restic, &["restore", "latest", "--target", place.to_str().unwrap()]).unwrap();
    open_up(&place);
    server.sql("postgres", "DROP DATABASE IF EXISTS back").unwrap();
    server.create("back", &["-T", "template0"]).unwrap();
    server.run("pg_restore", &["-d", "back", place.join("database").to_str().unwrap()], "").unwrap();
    server.fingerprint("back").unwrap()
}

fn open_up(place: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755)).unwrap();
    for entry in std::fs::read_dir(place).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            open_up(&entry.path());
        } else {
            std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
}

#[test]
fn a_network_that_fails_at_any_byte_makes_no_false_copy() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(300)).unwrap();
    server.sql("shop", "UPDATE orders SET placed = now() WHERE id = 1").unwrap();
    let proxy = FaultProxy::start(&server.path().join(".s.PGSQL.5432")).unwrap();
    let service = format!(
        "[services.shop.sources.database]\nkind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\ndatabase = \"shop\"\nbin_dir = \"{}\"\n",
        proxy.port(),
        server.programs().display()
    );
    let product = Product::new(PROGRAM, &service).unwrap();
    proxy.set(Fault::None);
    product.backup("shop").unwrap();
    let bytes = proxy.said();
    assert!(bytes > 50_000, "{bytes}");
    proxy.set(Fault::Latency(Duration::from_millis(2)));
    product.backup("shop").unwrap();
    let truth = restored(&product, &server);
    // One expression of a check is spelled otherwise by a server that has read it twice.
    let plain = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.contains("customers_tier_check")).map(str::to_owned).collect()
    };
    assert_eq!(plain(&truth), plain(&server.fingerprint("shop").unwrap()));

    let seed = number("SEAWORTHY_SEED", 6);
    let mut dice = Dice::new(seed);
    let faults = number("SEAWORTHY_FAULTS", 12);
    let (mut happened, mut refused, mut caught) = (0, 0, 0);
    for trial in 0..faults {
        let at = dice.below(bytes);
        let fault = match trial % 4 {
            0 => Fault::Cut(at),
            1 => Fault::Reset(at),
            2 => Fault::BlackHole(at),
            _ => Fault::Corrupt(at),
        };
        proxy.set(fault);
        let began = Instant::now();
        let ran = product.run(&["backup", "shop", "--timeout", "10s"]).unwrap();
        let what = format!("seed {seed}, trial {trial}: {fault:?}: {ran:?}");
        assert!(began.elapsed() < Duration::from_secs(40), "{what}");
        assert!(ran.code.is_some_and(|code| code != 101) && !ran.stderr.contains("panicked"), "{what}");
        happened += u64::from(proxy.happened());
        proxy.set(Fault::None);
        if ran.code == Some(0) {
            // It is called a copy: then it is one, or its drill says that it is none.
            let drill = product.run(&["drill", "shop"]).unwrap();
            if drill.code == Some(0) {
                assert_eq!(restored(&product, &server), truth, "{what}");
            } else {
                caught += 1;
            }
        } else {
            refused += 1;
        }
        let next = product.run(&["backup", "shop"]).unwrap();
        assert_eq!(next.code, Some(0), "{what}: the next one: {next:?}");
    }
    assert!(happened * 3 > faults * 2, "only {happened} of {faults} faults happened");
    product.drill("shop", 0).unwrap();
    product.judged(&["check", "--read-data"]).unwrap();
    println!(
        "figure: backup over a network: {happened} faults at random bytes (cut, reset, black hole, one bit): {refused} refused, {caught} \
         caught by the drill, the others harmless"
    );
}
