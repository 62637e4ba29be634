//! What others may see of this process's memory, which holds passwords and keys.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// From here on no core dump is written of this process, and nobody but root may look into its memory (`prctl(2)`,
/// `PR_SET_DUMPABLE`). Programs that it starts write none either, and can be looked into by their user as ever.
///
/// What was shown before this call is not taken back: call it first of all.
pub fn keep_memory_private() -> io::Result<()> {
    // 1, not 0: a core_pattern that pipes to a collector ignores 0, and 1 is the kernel's word for "no dump at all".
    let now = rustix::process::getrlimit(Resource::Core);
    let bound = now.maximum.map_or(1, |maximum| maximum.min(1));
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(bound), maximum: Some(bound) })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
