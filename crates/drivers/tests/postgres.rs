//! The PostgreSQL source against a real server: what it captures comes back equal, and what is wrong is found.
#![cfg(feature = "postgres")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;
use seaworthy_drivers::source::postgres::PostgresSource;
use seaworthy_interface::{Captured, Cx, DriverError, Restored, Source as _};
use seaworthy_model::finding::{Finding, FindingCode};
use seaworthy_model::source::{PostgresSpec, Tls};
use seaworthy_model::verdict::CheckOutcome;
use seaworthy_model::witness::Witness;
use seaworthy_model::witness::postgres::PostgresWitness;
use seaworthy_testkit::postgres::{Server, shop};
use support::{DiskCopy, OpenSandbox};

fn spec(server: &Server, database: &str) -> PostgresSpec {
    PostgresSpec {
        host: server.host(),
        port: server.port(),
        user: "postgres".to_owned(),
        database: database.to_owned(),
        password: None,
        tls: Tls::LocalOnly,
        exclude_schemas: Vec::new(),
        exclude_tables: Vec::new(),
        lock_timeout: SignedDuration::from_secs(10),
        bin_dir: None,
        may_be_empty: false,
    }
}

struct Copied {
    captured: Captured,
    copy: Arc<DiskCopy>,
    source: PostgresSource,
    _directory: tempfile::TempDir,
}

impl Copied {
    fn witness(&self) -> &PostgresWitness {
        match &self.captured.witness {
            Witness::Postgres(witness) => witness,
            Witness::Sqlite(_) | Witness::Files(_) => panic!("a PostgreSQL witness"),
        }
    }

    async fn restored(&self) -> Box<dyn Restored> {
        self.try_restored().await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    async fn try_restored(&self) -> Result<Box<dyn Restored>, DriverError> {
        let copy = Arc::clone(&self.copy);
        self.source.restore(&Cx::unbounded(), &self.captured.witness, copy, OpenSandbox::new()).await
    }

    /// Findings of a drill of this copy: restore, measure, compare.
    async fn findings(&self) -> Vec<Finding> {
        let restored = self.restored().await;
        let mut findings = findings(&*restored, &self.captured.witness).await;
        findings.extend(restored.findings());
        restored.close(&Cx::unbounded()).await.unwrap();
        findings
    }
}

fn chain(error: &DriverError) -> String {
    let mut text = format!("{error} [{:?}] hint: {:?}", error.code, error.hint);
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

async fn findings(restored: &dyn Restored, witness: &Witness) -> Vec<Finding> {
    let observed = restored.witness(&Cx::unbounded(), witness).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let reports = witness.compare(&observed);
    let executed: Vec<String> = reports.iter().map(|report| report.name.clone()).collect();
    assert_eq!(executed, witness.checks());
    for report in &reports {
        assert_eq!(report.outcome == CheckOutcome::Passed, report.findings.is_empty(), "{report:?}");
    }
    reports.into_iter().flat_map(|report| report.findings).collect()
}

fn codes(findings: &[Finding]) -> BTreeSet<FindingCode> {
    findings.iter().map(|finding| finding.code).collect()
}

async fn try_capture(spec: PostgresSpec) -> Result<Copied, DriverError> {
    let source = PostgresSource::new(spec, None, Vec::new())?;
    let directory = tempfile::tempdir().unwrap();
    let copy = Arc::new(DiskCopy::new(&directory.path().join("copy")));
    let captured = source.capture(&Cx::unbounded(), Arc::<DiskCopy>::clone(&copy)).await?;
    assert_eq!(copy.unfinished.load(std::sync::atomic::Ordering::SeqCst), 0);
    Ok(Copied { captured, copy, source, _directory: directory })
}

async fn capture(spec: PostgresSpec) -> Copied {
    try_capture(spec).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_comes_back_equal() {
    let server = Server::start(&[]).unwrap();
    server.create("shop", &[]).unwrap();
    server.sql("shop", &shop(500)).unwrap();
    let copied = capture(spec(&server, "shop")).await;
    assert_eq!(copied.captured.findings, []);
    assert!(copied.captured.is_complete);
    assert_eq!(copied.witness().tables["public.orders"].rows, 500);
    assert_eq!(copied.findings().await, []);
}
