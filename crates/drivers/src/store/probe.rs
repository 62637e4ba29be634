//! What the credential that backs up may do to what it has stored, found out on an object of our own.
//!
//! The probe is one small object with a fixed name beside the directories of the repository, and one among the locks. Nothing of the
//! format has such a name, so every reader passes over them. At most these two stay where the credential may not delete: they
//! are found again by the next probe.

use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use seaworthy_interface::{Cx, DriverError, ErrorKind};
use seaworthy_model::finding::FindingCode;
use seaworthy_model::posture::{Seen, WriterFacts};

/// Where the probe lies, below the prefix of the repository.
pub const PROBE: &str = "seaworthy-probe";
/// The one among the locks, which may be removed.
const PROBE_OF_LOCKS: &str = "locks/seaworthy-probe";

/// Writes the probe, tries to replace and to delete it, and says what happened. An error is a credential that cannot even write: then
/// nothing is known.
pub async fn probe_writer(cx: &Cx, objects: &dyn ObjectStore) -> Result<WriterFacts, DriverError> {
    let failed = |what: &str, error: Error| {
        DriverError::new(ErrorKind::Other, format!("{what} the probe {PROBE}"))
            .code(FindingCode::AuthDenied)
            .because(error.to_string().split(" - ").next().unwrap_or_default().to_owned())
    };
    let (place, among_locks) = (Path::from(PROBE), Path::from(PROBE_OF_LOCKS));
    let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let (first, second) = ("may this be replaced?\n", "it was replaced\n");
    match cx.run(objects.put_opts(&place, first.into(), create())).await? {
        // One from a probe before, by which it could not be deleted.
        Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
        Err(error) => return Err(failed("write", error)),
    }
    // An acknowledgement is believed after a look.
    let before = cx.run(read(objects, &place)).await?.map_err(|error| failed("read", error))?;
    let other = if before == second { first } else { second };
    let may_overwrite = match cx.run(objects.put(&place, other.into())).await? {
        Err(error) => refused(&error),
        Ok(_) => match cx.run(read(objects, &place)).await? {
            Ok(now) => Seen::Known(now == other),
            Err(error) => unknown(&error),
        },
    };
    let may_delete = gone(cx, objects, &place).await?;
    let may_delete_locks = match cx.run(objects.put_opts(&among_locks, first.into(), create())).await? {
        Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
            gone(cx, objects, &among_locks).await?
        }
        Err(error) => unknown(&error),
    };
    Ok(WriterFacts { may_overwrite, may_delete, may_delete_locks })
}

async fn read(objects: &dyn ObjectStore, place: &Path) -> object_store::Result<String> {
    let bytes = objects.get(place).await?.bytes().await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether an object can be deleted, which it then is.
async fn gone(cx: &Cx, objects: &dyn ObjectStore, place: &Path) -> Result<Seen<bool>, DriverError> {
    Ok(match cx.run(objects.delete(place)).await? {
        Err(error) => refused(&error),
        Ok(()) => match cx.run(objects.head(place)).await? {
            Err(Error::NotFound { .. }) => Seen::Known(true),
            Ok(_) => Seen::Known(false),
            Err(error) => unknown(&error),
        },
    })
}

/// A refusal for want of a right is an answer; everything else is none.
fn refused(error: &Error) -> Seen<bool> {
    match error {
        Error::PermissionDenied { .. } => Seen::Known(false),
        error if error.to_string().contains("status code: 403") => Seen::Known(false),
        error => unknown(error),
    }
}

fn unknown(error: &Error) -> Seen<bool> {
    let text = error.to_string();
    let status = text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3));
    Seen::Unknown(status.map_or("no answer".to_owned(), |status| format!("HTTP {status}")))
}
