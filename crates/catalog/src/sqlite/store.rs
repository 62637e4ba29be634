//! What is asked of the database, one transaction each. Runs on the catalogue's thread and may block.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{
    Connection, OptionalExtension as _, Transaction, TransactionBehavior, params, params_from_iter,
};
use seaworthy_model::assess::{Dates, EPOCH, SourceHistory};
use seaworthy_model::canonical;
use seaworthy_model::id::{CopyId, Digest, RepositoryId, ServiceName};
use seaworthy_model::point::RecoveryPoint;
use seaworthy_model::receipt::{Head, Receipt, read_unverified};
use seaworthy_model::signature::Envelope;

use crate::{
    CatalogError, Claim, HeldClaim, JournalEntry, PointQuery, ReceiptName, ReceiptQuery, StoredReceipt,
};

type Result<T> = std::result::Result<T, CatalogError>;

fn begin(connection: &mut Connection) -> Result<Transaction<'_>> {
    // Immediate: a transaction that reads and then writes must not find the ledger changed between the two.
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

fn integer(number: u64) -> Result<i64> {
    i64::try_from(number)
        .map_err(|_| CatalogError::Damaged(format!("{number} is beyond what SQLite can count")))
}

fn number(integer: i64) -> Result<u64> {
    u64::try_from(integer).map_err(|_| CatalogError::Damaged(format!("{integer} where a count belongs")))
}

fn canonical_text<T: serde::Serialize>(fact: &T) -> Result<String> {
    let bytes = canonical::of(fact).map_err(|error| CatalogError::Damaged(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| CatalogError::Damaged(error.to_string()))
}

fn parsed<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| CatalogError::Damaged(format!("a {what} cannot be read: {error}")))
}

fn read(line: &str) -> Result<Receipt> {
    let envelope =
        Envelope::from_json(line.as_bytes()).map_err(|error| CatalogError::Receipt(error.into()))?;
    Ok(read_unverified(&envelope)?)
}

// ----------------------------------------------------------------------------------------------------- the ledger

pub(super) fn head(connection: &Connection) -> Result<Option<Head>> {
    let row = connection
        .prepare_cached("SELECT sequence, digest FROM receipt ORDER BY sequence DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    row.map(|(sequence, digest)| Ok(Head { sequence: number(sequence)?, digest: Digest(digest) })).transpose()
}

pub(super) fn append(
    connection: &mut Connection,
    expected: Option<Head>,
    lines: &[String],
    claim: Option<&Claim>,
) -> Result<Head> {
    let transaction = begin(connection)?;
    if let Some(claim) = claim {
        held(&transaction, claim)?;
    }
    let found = head(&transaction)?;
    if found != expected {
        return Err(CatalogError::Conflict { expected, found });
    }
    let mut last = found;
    let mut dates = dates(&transaction)?;
    for line in lines {
        let receipt = read(line)?;
        fits(&transaction, last.as_ref(), &receipt, line)?;
        keep(&transaction, &receipt, line)?;
        derive(&transaction, &receipt, &mut dates)?;
        last = Some(receipt.head());
    }
    let last = last.ok_or_else(|| CatalogError::Unfit {
        sequence: 0,
        detail: "nothing was appended to an empty ledger".to_owned(),
    })?;
    transaction.commit()?;
    Ok(last)
}

/// Refuses what a verification of the ledger would refuse, the signature apart.
fn fits(transaction: &Transaction<'_>, last: Option<&Head>, receipt: &Receipt, line: &str) -> Result<()> {
    let unfit = |detail: String| Err(CatalogError::Unfit { sequence: receipt.sequence, detail });
    if line.contains(['\n', '\r']) {
        return unfit("its envelope is not one line".to_owned());
    }
    let expected = last.map_or(1, |head| head.sequence.saturating_add(1));
    if receipt.sequence != expected {
        return unfit(format!("the next receipt is {expected}"));
    }
    if receipt.previous.as_ref() != last.map(|head| &head.digest) {
        return unfit("it follows another receipt".to_owned());
    }
    if let Some(slot) = receipt.act.ends() {
        let row = transaction
            .prepare_cached(
                "SELECT act, run, EXISTS (SELECT 1 FROM receipt AS ending WHERE ending.ends = receipt.sequence)
                 FROM receipt WHERE sequence = ?1",
            )?
            .query_row([integer(slot)?], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, bool>(2)?))
            })
            .optional()?;
        let run = receipt.act.run().map(|run| run.0.as_str());
        match row {
            None => return unfit(format!("it ends slot {slot}, which does not exist")),
            Some((_, _, true)) => return unfit(format!("it ends slot {slot}, which has ended")),
            Some((act, owner, false)) if act == "due" && owner.as_deref() == run => {}
            Some(_) => return unfit(format!("it ends slot {slot}, which is not a slot of its run")),
        }
    }
    Ok(())
}

fn keep(transaction: &Transaction<'_>, receipt: &Receipt, line: &str) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO receipt (sequence, digest, act, service, run, ends, line)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            integer(receipt.sequence)?,
            receipt.digest.0,
            receipt.act.word(),
            receipt.act.about().map(|(service, _)| service.as_str()),
            receipt.act.run().map(|run| run.0.as_str()),
            receipt.act.ends().map(integer).transpose()?,
            line,
        ])?;
    Ok(())
}

pub(super) fn receipts(connection: &Connection, query: &ReceiptQuery) -> Result<Vec<StoredReceipt>> {
    let mut sql = "SELECT sequence, line FROM receipt WHERE sequence > ?".to_owned();
    let mut values: Vec<Value> = vec![integer(query.after)?.into()];
    if let Some(service) = &query.service {
        sql.push_str(" AND service = ?");
        values.push(service.as_str().to_owned().into());
    }
    if let Some(act) = &query.act {
        sql.push_str(" AND act = ?");
        values.push(act.clone().into());
    }
    match &query.name {
        None => {}
        Some(ReceiptName::Sequence(sequence)) => {
            sql.push_str(" AND sequence = ?");
            values.push(integer(*sequence)?.into());
        }
        Some(ReceiptName::Digest(beginning)) => {
            let digits = beginning.strip_prefix("sha256:").unwrap_or(beginning);
            // A range, not LIKE: it uses the index and knows no wildcards. `g` follows every hexadecimal digit.
            sql.push_str(" AND digest >= ? AND digest < ?");
            values.push(format!("sha256:{digits}").into());
            values.push(format!("sha256:{digits}g").into());
        }
        Some(ReceiptName::Run(run)) => {
            sql.push_str(" AND run = ?");
            values.push(run.0.clone().into());
        }
    }
    sql.push_str(if query.newest_first { " ORDER BY sequence DESC" } else { " ORDER BY sequence" });
    sql.push_str(" LIMIT ?");
    values.push(i64::from(query.limit).into());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(StoredReceipt { sequence: number(row.get(0)?)?, line: row.get(1)? });
    }
    Ok(found)
}

// --------------------------------------------------------------------------------------------------- what is derived

/// The date of the ledger's last receipt that has one. A line that cannot be read has none: it keeps nothing from being appended.
fn dates(transaction: &Transaction<'_>) -> Result<Dates> {
    let mut dates = Dates::default();
    let mut statement = transaction.prepare_cached("SELECT line FROM receipt ORDER BY sequence DESC")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        let Ok(receipt) = read(&line) else { continue };
        if receipt.at >= EPOCH {
            dates.next(receipt.at);
            break;
        }
    }
    Ok(dates)
}

/// Tells every history and every point that the clock was set back.
fn set_back(transaction: &Transaction<'_>, at: Timestamp) -> Result<()> {
    let mut points: Vec<RecoveryPoint> = Vec::new();
    {
        let mut statement = transaction.prepare_cached("SELECT fact FROM recovery_point")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let before: RecoveryPoint = parsed("recovery point", &row.get::<_, String>(0)?)?;
            let mut point = before.clone();
            point.set_back(at);
            if point != before {
                points.push(point);
            }
        }
    }
    for point in points {
        transaction
            .prepare_cached("UPDATE recovery_point SET fact = ?3 WHERE repository = ?1 AND copy = ?2")?
            .execute([&point.repository.id.0, &point.copy.0, &canonical_text(&point)?])?;
    }
    let mut facts: Vec<String> = Vec::new();
    {
        let mut statement = transaction.prepare_cached("SELECT fact FROM service_state")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            facts.push(row.get(0)?);
        }
    }
    for fact in facts {
        let mut history: SourceHistory = parsed("history", &fact)?;
        history.set_back(at);
        transaction
            .prepare_cached("UPDATE service_state SET fact = ?3 WHERE service = ?1 AND source = ?2")?
            .execute([history.service.as_str(), history.source.as_str(), &canonical_text(&history)?])?;
    }
    Ok(())
}

fn known_point(
    transaction: &Transaction<'_>,
    repository: &RepositoryId,
    copy: &CopyId,
) -> Result<Option<RecoveryPoint>> {
    let fact = transaction
        .prepare_cached("SELECT fact FROM recovery_point WHERE repository = ?1 AND copy = ?2")?
        .query_row([&repository.0, &copy.0], |row| row.get::<_, String>(0))
        .optional()?;
    fact.map(|fact| parsed("recovery point", &fact)).transpose()
}

fn derive(transaction: &Transaction<'_>, receipt: &Receipt, dates: &mut Dates) -> Result<()> {
    if dates.next(receipt.at) {
        set_back(transaction, receipt.at)?;
    }
    if let Some(point) = RecoveryPoint::made_by(receipt) {
        let known = known_point(transaction, &point.repository.id, &point.copy)?;
        let original = match receipt.act.replicates() {
            Some((from, original)) => known_point(transaction, from, original)?,
            None => None,
        };
        let point = point.known_as(known.as_ref()).descended_from(original.as_ref());
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO recovery_point (repository, copy, service, source, sequence, fact)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                point.repository.id.0,
                point.copy.0,
                point.service.as_str(),
                point.source.as_str(),
                integer(point.sequence)?,
                canonical_text(&point)?,
            ])?;
    }
    for (repository, copy) in receipt.act.judges() {
        let Some(mut point) = known_point(transaction, repository, copy)? else { continue };
        point.apply(receipt);
        transaction
            .prepare_cached("UPDATE recovery_point SET fact = ?3 WHERE repository = ?1 AND copy = ?2")?
            .execute([&repository.0, &copy.0, &canonical_text(&point)?])?;
    }
    for of in receipt.act.concerns() {
        let fact = transaction
            .prepare_cached("SELECT fact FROM service_state WHERE service = ?1 AND source = ?2")?
            .query_row([of.service.as_str(), of.source.as_str()], |row| row.get::<_, String>(0))
            .optional()?;
        let mut history = match fact {
            Some(fact) => parsed("history", &fact)?,
            None => SourceHistory::new(of.service.clone(), of.source.clone()),
        };
        history.apply(receipt);
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO service_state (service, source, fact) VALUES (?1, ?2, ?3)",
            )?
            .execute([of.service.as_str(), of.source.as_str(), &canonical_text(&history)?])?;
    }
    Ok(())
}

pub(super) fn rebuild(connection: &mut Connection) -> Result<()> {
    let transaction = begin(connection)?;
    transaction.execute_batch("DELETE FROM recovery_point; DELETE FROM service_state;")?;
    {
        let mut statement = transaction.prepare("SELECT line FROM receipt ORDER BY sequence")?;
        let mut rows = statement.query([])?;
        let mut dates = Dates::default();
        while let Some(row) = rows.next()? {
            let line: String = row.get(0)?;
            derive(&transaction, &read(&line)?, &mut dates)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

pub(super) fn derived(connection: &Connection) -> Result<Vec<u8>> {
    // One statement, one snapshot; canonical facts are taken as they are stored.
    let mut statement = connection.prepare(
        "SELECT fact FROM (
             SELECT 1 AS part, service AS a, source AS b, fact FROM service_state
             UNION ALL SELECT 2, repository, copy, fact FROM recovery_point)
         ORDER BY part, a, b",
    )?;
    let mut rows = statement.query([])?;
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        bytes.extend_from_slice(row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?);
        bytes.push(b'\n');
    }
    Ok(bytes)
}

pub(super) fn points(connection: &Connection, query: &PointQuery) -> Result<Vec<RecoveryPoint>> {
    let mut sql = "SELECT fact FROM recovery_point WHERE true".to_owned();
    let mut values: Vec<Value> = Vec::new();
    if let Some(service) = &query.service {
        sql.push_str(" AND service = ?");
        values.push(service.as_str().to_owned().into());
    }
    if let Some(source) = &query.source {
        sql.push_str(" AND source = ?");
        values.push(source.as_str().to_owned().into());
    }
    if let Some(repository) = &query.repository {
        sql.push_str(" AND repository = ?");
        values.push(repository.0.clone().into());
    }
    sql.push_str(" ORDER BY sequence, repository, copy");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(parsed("recovery point", &row.get::<_, String>(0)?)?);
    }
    Ok(found)
}

pub(super) fn histories(
    connection: &mut Connection,
    service: Option<&ServiceName>,
) -> Result<(Option<Head>, Vec<SourceHistory>)> {
    // Deferred: head and histories are of one snapshot, and nobody is kept from writing.
    let transaction = connection.transaction()?;
    let head = head(&transaction)?;
    let mut found = Vec::new();
    {
        let mut statement = transaction.prepare_cached(
            "SELECT fact FROM service_state WHERE ?1 IS NULL OR service = ?1 ORDER BY service, source",
        )?;
        let mut rows = statement.query([service.map(ServiceName::as_str)])?;
        while let Some(row) = rows.next()? {
            let fact = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            found.push(parsed("history", fact)?);
        }
    }
    transaction.commit()?;
    Ok((head, found))
}

// ----------------------------------------------------------------------------------------------- claims and journals

/// Refuses a claim that has been taken over or released.
fn held(transaction: &Transaction<'_>, claim: &Claim) -> Result<()> {
    let generation = transaction
        .prepare_cached("SELECT generation FROM claim WHERE name = ?1")?
        .query_row([&claim.name], |row| row.get::<_, i64>(0))
        .optional()?;
    match generation {
        Some(generation) if number(generation)? == claim.generation => Ok(()),
        Some(_) | None => {
            Err(CatalogError::Fenced { name: claim.name.clone(), generation: claim.generation })
        }
    }
}

pub(super) fn claim(
    connection: &mut Connection,
    name: String,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<Claim> {
    let transaction = begin(connection)?;
    if let Some(other) = claims(&transaction)?.into_iter().find(|other| other.claim.name == name)
        && other.until > now
    {
        return Err(CatalogError::Held { name, holder: other.holder, until: other.until });
    }
    let generation: i64 =
        transaction
            .query_row("UPDATE generation SET last = last + 1 RETURNING last", [], |row| row.get(0))?;
    // An upsert, not REPLACE: replacing would delete the row, and its journal with it.
    transaction.execute(
        "INSERT INTO claim (name, generation, holder, until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET generation = ?2, holder = ?3, until = ?4",
        params![name, generation, holder, until.to_string()],
    )?;
    transaction.commit()?;
    Ok(Claim { name, generation: number(generation)? })
}

pub(super) fn renew(connection: &mut Connection, claim: &Claim, until: Timestamp) -> Result<()> {
    let transaction = begin(connection)?;
    held(&transaction, claim)?;
    transaction.execute("UPDATE claim SET until = ?2 WHERE name = ?1", [&claim.name, &until.to_string()])?;
    transaction.commit()?;
    Ok(())
}

pub(super) fn release(connection: &mut Connection, claim: &Claim) -> Result<()> {
    let transaction = begin(connection)?;
    held(&transaction, claim)?;
    transaction.execute("DELETE FROM claim WHERE name = ?1", [&claim.name])?;
    transaction.commit()?;
    Ok(())
}

pub(super) fn claims(connection: &Connection) -> Result<Vec<HeldClaim>> {
    let mut statement =
        connection.prepare_cached("SELECT name, generation, holder, until FROM claim ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let until: String = row.get(3)?;
        found.push(HeldClaim {
            claim: Claim { name: row.get(0)?, generation: number(row.get(1)?)? },
            holder: row.get(2)?,
            until: until
                .parse()
                .map_err(|_| CatalogError::Damaged(format!("`{until}` is not an instant")))?,
        });
    }
    Ok(found)
}

pub(super) fn journal(connection: &mut Connection, claim: &Claim, event: &[u8]) -> Result<()> {
    let transaction = begin(connection)?;
    held(&transaction, claim)?;
    transaction.execute(
        "INSERT INTO journal (name, generation, event) VALUES (?1, ?2, ?3)",
        params![claim.name, integer(claim.generation)?, event],
    )?;
    transaction.commit()?;
    Ok(())
}

pub(super) fn journal_of(connection: &Connection, name: &str) -> Result<Vec<JournalEntry>> {
    let mut statement = connection
        .prepare_cached("SELECT generation, event FROM journal WHERE name = ?1 ORDER BY position")?;
    let mut rows = statement.query([name])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(JournalEntry { generation: number(row.get(0)?)?, event: row.get(1)? });
    }
    Ok(found)
}
