//! `restore` for people: the menu at a terminal, everything at once, and from the other site.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

#[expect(dead_code, reason = "what other tests of the face use")]
mod support;

use std::time::Duration;

use seaworthy_testkit::terminal::Terminal;
use support::Estate;

const PATIENCE: Duration = Duration::from_secs(60);
const DOWN: &str = "\u{1b}[B";
const ESCAPE: &str = "\u{1b}";

/// The live data is here, a second repository is elsewhere, and both hold a copy of each source.
fn two_sites() -> Estate {
    let estate = Estate::empty();
    estate.sources();
    let root = estate.path("").display().to_string();
    estate.configure(&format!(
        "\n[repositories.away]\nlocation = \"{root}away\"\npassword = \"file:{root}password\"\nsite = \"there\"\nmedium = \"nas\"\n"
    ));
    let path = estate.path("seaworthy.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let said = "[defaults]\nproduction = { site = \"here\", medium = \"disk\" }\n";
    std::fs::write(&path, text.replacen("[defaults]\n", said, 1)).unwrap();
    estate.run(&["init", "--missing-repositories"]).exits(0);
    estate.run(&["backup"]).exits(0);
    estate
}

fn at_terminal(estate: &Estate, arguments: &[&str]) -> Terminal {
    Terminal::start(&estate.command(arguments)).unwrap()
}

#[test]
fn a_person_without_the_manual_restores_by_the_menu() {
    let estate = two_sites();
    estate.run(&["drill", "papers", "-q"]).exits(0);
    let mut terminal = at_terminal(&estate, &["restore"]);
    let menu = terminal.shows("5  Exit", PATIENCE).unwrap();
    for line in [
        "Restore what?",
        "1  Database              1 database",
        "2  Files and contracts   1 tree",
        "3  Full",
        "4  List",
    ] {
        assert!(menu.contains(line), "{menu}");
    }
    // Typing searches.
    terminal.types("contracts").unwrap();
    terminal.shows("> 2  Files", PATIENCE).unwrap();
    terminal.types("\r").unwrap();
    let copies = terminal.shows("in away (offsite)", PATIENCE).unwrap();
    assert!(
        copies.contains("Which copy?") && copies.contains("in local") && copies.contains("proven A4"),
        "{copies}"
    );
    terminal.types("\r").unwrap();
    terminal.shows("To which new directory?", PATIENCE).unwrap();
    terminal.types("./back\r").unwrap();
    let plan = terminal.shows("Restore now?", PATIENCE).unwrap();
    assert!(plan.contains("by the last drill") && plan.contains("are free in"), "{plan}");
    assert!(plan.contains(" restore papers --source files --from local --point "), "{plan}");
    terminal.types("\r").unwrap();
    let (status, text) = terminal.ends(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("restored papers/files"), "{text}");
    assert_eq!(
        std::fs::read(estate.path("back/letter.txt")).unwrap(),
        std::fs::read(estate.path("files/letter.txt")).unwrap()
    );
}

#[test]
fn the_menu_lists_and_leaves_and_nothing_is_written() {
    let estate = two_sites();
    let before = estate.run(&["receipts", "list"]).exits(0).out;
    let mut terminal = at_terminal(&estate, &["restore"]);
    terminal.shows("5  Exit", PATIENCE).unwrap();
    terminal.types("4\r").unwrap();
    terminal.shows("papers/files", PATIENCE).unwrap();
    terminal.shows("not proven yet", PATIENCE).unwrap();
    terminal.shows("5  Exit", PATIENCE).unwrap();
    terminal.types("5\r").unwrap();
    let (status, text) = terminal.ends(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("nothing was restored"), "{text}");
    // Escape leaves from anywhere.
    let mut terminal = at_terminal(&estate, &["restore", "shop"]);
    terminal.shows("Which copy?", PATIENCE).unwrap();
    terminal.types(DOWN).unwrap();
    terminal.types(ESCAPE).unwrap();
    let (status, text) = terminal.ends(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(130), "{text}");
    assert_eq!(estate.run(&["receipts", "list"]).exits(0).out, before);
}

#[test]
fn a_copy_that_was_shown_to_be_bad_is_offered_last() {
    let estate = two_sites();
    for pack in estate.objects("data") {
        support::flip(&pack);
    }
    estate.run(&["drill", "papers", "-q"]).exits(5);
    let mut terminal = at_terminal(&estate, &["restore", "papers"]);
    let copies = terminal.shows("FAILED", PATIENCE).unwrap();
    let (good, bad) = (copies.find("in away").unwrap(), copies.find("in local").unwrap());
    assert!(good < bad, "{copies}");
    terminal.types("\r").unwrap();
    terminal.shows("To which new directory?", PATIENCE).unwrap();
    terminal.types("\r").unwrap();
    let plan = terminal.shows("Restore now?", PATIENCE).unwrap();
    assert!(plan.contains("not known: no drill of this source has passed"), "{plan}");
    terminal.types("\r").unwrap();
    let (status, text) = terminal.ends(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
}

#[test]
fn the_menu_restores_everything() {
    let estate = two_sites();
    let mut terminal = at_terminal(&estate, &["restore"]);
    terminal.shows("5  Exit", PATIENCE).unwrap();
    terminal.types("3\r").unwrap();
    terminal.shows("Of which service?", PATIENCE).unwrap();
    terminal.types("\r").unwrap();
    terminal.shows("Below which new directory?", PATIENCE).unwrap();
    terminal.types("all\r").unwrap();
    let plan = terminal.shows("Restore now?", PATIENCE).unwrap();
    assert!(plan.contains("--to all/shop/database") && plan.contains("--to all/papers/files"), "{plan}");
    terminal.types("y\r").unwrap();
    let (status, text) = terminal.ends(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("2 of 2 sources restored") || text.contains("2 sources restored"), "{text}");
    assert!(estate.path("all/shop/database").is_dir() && estate.path("all/papers/files").is_dir());
}

#[test]
fn a_source_without_a_copy_is_in_the_exit_code_of_everything() {
    let estate = Estate::new();
    estate.run(&["backup", "papers"]).exits(0);
    estate.run(&["restore", "--all", "--to", "flags"]).exits(10).says(&["1 of 2 sources restored"]);
    let mut terminal = at_terminal(&estate, &["restore", "--to", "menu"]);
    terminal.shows("5  Exit", PATIENCE).unwrap();
    terminal.types("3\r").unwrap();
    terminal.shows("Of which service?", PATIENCE).unwrap();
    terminal.types("\r").unwrap();
    terminal.shows("shop/database: no copy is known", PATIENCE).unwrap();
    terminal.shows("Restore now?", PATIENCE).unwrap();
    terminal.types("\r").unwrap();
    let (status, text) = terminal.ends(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(10), "{text}");
    assert!(estate.path("menu/papers/files").is_dir());
}

#[test]
fn every_source_goes_to_its_own_place_and_one_that_fails_keeps_no_other_waiting() {
    let estate = two_sites();
    estate.run(&["restore", "--all", "--dry-run", "--to", "all"]).exits(0).says(&[
        "would restore shop/database",
        "would restore papers/files",
        "all/papers/files",
    ]);
    assert!(!estate.path("all").exists());
    std::fs::create_dir_all(estate.path("all/shop/database")).unwrap();
    std::fs::write(estate.path("all/shop/database/mine"), "mine").unwrap();
    let run = estate.run(&["restore", "--all", "--to", "all"]).exits(20);
    run.says(&["holds something", "restored papers/files", "1 of 2 sources restored"]);
    assert_eq!(std::fs::read(estate.path("all/shop/database/mine")).unwrap(), b"mine");
    assert!(estate.path("all/papers/files").is_dir());
    estate.run(&["restore", "shop", "--all", "--to", "more"]).exits(0);
    assert!(estate.path("more/shop/database").is_dir() && !estate.path("more/papers").exists());
    estate
        .run(&["restore", "--all", "--to", "postgres:all"])
        .exits(2)
        .says(&["do not fit into one database"]);
}

#[test]
fn offsite_takes_the_copy_that_is_known_to_be_elsewhere() {
    let estate = two_sites();
    // The copy here is not needed, and not asked.
    std::fs::remove_dir_all(estate.path("repository")).unwrap();
    estate
        .run(&["restore", "--offsite", "--all", "--to", "back"])
        .exits(0)
        .says(&["2 of 2 sources restored"]);
    assert!(estate.path("back/papers/files").is_dir());
    let path = estate.path("seaworthy.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("site = \"there\"", "site = \"here\"", 1)).unwrap();
    let run = estate.run(&["restore", "papers", "--offsite", "--to", "more"]).exits(10);
    run.says(&["is known to be at another site", "[defaults.production]"]);
    std::fs::write(&path, text.replacen("production = { site = \"here\", medium = \"disk\" }\n", "", 1))
        .unwrap();
    estate.run(&["restore", "papers", "--offsite", "--to", "more"]).exits(10).hints();
}

#[test]
fn what_was_not_said_is_asked_of_people_only() {
    let estate = two_sites();
    estate.run(&["restore"]).exits(2).says(&["which service", "shop, papers"]);
    estate.run(&["restore", "papers"]).exits(2).says(&["where it is to be restored", "--to"]);
    estate.run(&["restore", "--all"]).exits(2).says(&["--to"]);
    let mut terminal = at_terminal(&estate, &["restore", "--yes"]);
    terminal.shows("which service", PATIENCE).unwrap();
    assert_eq!(terminal.ends(PATIENCE).unwrap().0.code(), Some(2));
}

#[test]
fn on_a_new_machine_the_menu_says_what_to_do_first() {
    let estate = two_sites();
    std::fs::remove_dir_all(estate.path("state")).unwrap();
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(estate.path("state"))
        .unwrap();
    let mut terminal = at_terminal(&estate, &["restore"]);
    terminal.shows("seaworthy catalogue rebuild", PATIENCE).unwrap();
    assert_eq!(terminal.ends(PATIENCE).unwrap().0.code(), Some(10));
    estate.run(&["catalogue", "rebuild"]);
    let mut terminal = at_terminal(&estate, &["restore", "papers"]);
    terminal.shows("Which copy?", PATIENCE).unwrap();
    terminal.types("\r").unwrap();
    terminal.shows("To which new directory?", PATIENCE).unwrap();
    terminal.types("\r").unwrap();
    terminal.shows("Restore now?", PATIENCE).unwrap();
    terminal.types("\r").unwrap();
    let (status, text) = terminal.ends(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
}
