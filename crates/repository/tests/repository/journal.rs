//! The journal: durable, authenticated, and nothing to other clients.

use std::fs;

use seaworthy_repository::{Cuts, Id, PruneOptions, RepositoryError};

use crate::common::{Fixture, control, files, in_memory, judge, noise, overwrite, store_stream};

#[test]
fn what_is_put_is_got_until_it_is_removed() {
    let fixture = Fixture::new();
    let (_, remote) = in_memory();
    for repository in [&fixture.repository, &remote] {
        assert_eq!(repository.journal(&control()).unwrap(), []);
        repository.journal_remove(&[], &control()).unwrap();
        let long = noise(1, 3 << 20);
        let entries: [(&[u8], &[u8]); 4] = [(b"one", b"x"), (b"two", &long), (b"", b""), (b"one", b"x")];
        let ids: Vec<Id> = entries
            .iter()
            .map(|(words, entry)| repository.journal_put(words, entry, &control()).unwrap())
            .collect();
        let mut listed: Vec<Id> =
            repository.journal(&control()).unwrap().iter().map(|listed| listed.id).collect();
        let mut sorted = ids.clone();
        sorted.sort();
        listed.sort();
        assert_eq!(listed, sorted, "the same twice makes two entries");
        for (id, (words, entry)) in ids.iter().zip(entries) {
            assert_eq!(repository.journal_words(id, &control()).unwrap(), words);
            assert_eq!(repository.journal_get(id, &control()).unwrap(), (words.to_vec(), entry.to_vec()));
        }
        repository.journal_remove(&ids[1..], &control()).unwrap();
        repository.journal_remove(&ids[1..], &control()).unwrap();
        assert_eq!(repository.journal(&control()).unwrap().len(), 1);
        assert!(matches!(repository.journal_get(&ids[1], &control()), Err(RepositoryError::Missing { .. })));
        assert!(matches!(
            repository.journal_words(&ids[1], &control()),
            Err(RepositoryError::Missing { .. })
        ));
        let long = vec![0; 5_000];
        assert!(matches!(
            repository.journal_put(&long, b"x", &control()),
            Err(RepositoryError::Refused { .. })
        ));
    }
}

#[test]
fn other_clients_and_a_prune_leave_it_alone() {
    let fixture = Fixture::new();
    store_stream(&fixture.repository, "/x", b"hello", Cuts::ContentDefined);
    let id = fixture.repository.journal_put(b"words", b"entry", &control()).unwrap();
    judge(&fixture.path());
    let now = std::time::Duration::ZERO;
    let options = PruneOptions { delete_after: now, unlisted_after: now, ..PruneOptions::default() };
    fixture.repository.prune(&options, &control()).unwrap();
    let (words, entry) = fixture.reopen().journal_get(&id, &control()).unwrap();
    assert_eq!((words.as_slice(), entry.as_slice()), (b"words".as_slice(), b"entry".as_slice()));
}

#[test]
fn an_entry_of_which_a_byte_is_another_is_never_given_out() {
    let fixture = Fixture::new();
    let id = fixture.repository.journal_put(b"words", &noise(2, 500), &control()).unwrap();
    let path = files(&fixture.path().join("journal")).pop().unwrap();
    let sound = fs::read(&path).unwrap();
    let words_end = 4 + usize::try_from(u32::from_le_bytes(sound[..4].try_into().unwrap())).unwrap();
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x40;
        overwrite(&path, &damaged);
        let got = fixture.repository.journal_get(&id, &control());
        assert!(matches!(got, Err(RepositoryError::Damaged { .. })), "{at}: {got:?}");
        let words = fixture.repository.journal_words(&id, &control());
        assert_eq!(words.is_err(), at < words_end, "{at}: {words:?}");
    }
    for length in [0, 3, 4, 20, sound.len() - 1] {
        overwrite(&path, &sound[..length]);
        assert!(fixture.repository.journal_get(&id, &control()).is_err(), "{length}");
    }
    overwrite(&path, &sound);
    fixture.repository.journal_get(&id, &control()).unwrap();
}
