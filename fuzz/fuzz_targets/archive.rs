//! An archive of pg_dump is split into a directory or refused; every file that was begun is finished when it is whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaworthy_drivers::source::postgres::archive::{ArchiveError, ArchiveSink, read_directory_toc, split};

#[derive(Default)]
struct Sink {
    is_open: bool,
    bytes: usize,
}

impl ArchiveSink for Sink {
    fn begin(&mut self, name: &str) -> Result<(), ArchiveError> {
        assert!(!self.is_open && !name.is_empty() && !name.contains('/'));
        self.is_open = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        assert!(self.is_open);
        self.bytes += bytes.len();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ArchiveError> {
        assert!(self.is_open);
        self.is_open = false;
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _facts = read_directory_toc(bytes);
    let mut sink = Sink::default();
    if split(bytes, &mut sink, &mut |_| Ok(())).is_ok() {
        assert!(!sink.is_open && sink.bytes > 0);
    }
});
