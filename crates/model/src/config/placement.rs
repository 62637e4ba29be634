//! Where the live data is, what is asked of its copies, and repositories that a policy does not allow.

use super::diagnostic::{Draft, Place as At, quoted};
use super::meaning::{Judge, Repository, Sited, layered};
use super::shape::{PolicyTable, ProductionTable, built_in};
use crate::finding::FindingCode;
use crate::id::RepositoryName;
use crate::placement::{Place, PlacementPolicy, PlacementSpec, allows};
use crate::service::RepositorySpec;

/// The tables of a service, and those that stand for what they leave out.
pub(super) struct Tables<'a> {
    /// The file that the service is in.
    pub(super) text: usize,
    pub(super) production: [Option<&'a ProductionTable>; 2],
    pub(super) policy: [Option<&'a PolicyTable>; 2],
}

impl Judge<'_> {
    /// Reads both tables, key by key: the service's own before the defaults'.
    pub(super) fn placement(&mut self, prefix: &str, tables: &Tables<'_>) -> PlacementSpec {
        let Tables { text, production, policy } = tables;
        let none = ProductionTable::default();
        let [own, default] = production.map(|table| table.unwrap_or(&none));
        let mut word = |what: &str, value: Option<Sited<'_, String>>| -> Option<String> {
            let value = value?;
            if value.at.value.trim().is_empty() {
                Draft::error(value.place(), format!("`{what}` is empty"))
                    .hint("write a word, or leave it out")
                    .report(self.sink);
            }
            self.record(format!("{prefix}.production.{what}"), Some(&value.place()));
            Some(value.at.value.clone())
        };
        let production = Place {
            site: word("site", layered(own.site.as_ref(), *text, default.site.as_ref())),
            region: word("region", layered(own.region.as_ref(), *text, default.region.as_ref())),
            account: word("account", layered(own.account.as_ref(), *text, default.account.as_ref())),
            medium: word("medium", layered(own.medium.as_ref(), *text, default.medium.as_ref())),
        };
        let none = PolicyTable::default();
        let [own, default] = policy.map(|table| table.unwrap_or(&none));
        let mut number = |what: &str, value: Option<Sited<'_, u32>>, built_in: u32| -> u32 {
            self.record(format!("{prefix}.policy.{what}"), value.map(|value| value.place()).as_ref());
            value.map_or(built_in, |value| value.at.value)
        };
        let copies =
            number("copies", layered(own.copies.as_ref(), *text, default.copies.as_ref()), built_in::COPIES);
        let media =
            number("media", layered(own.media.as_ref(), *text, default.media.as_ref()), built_in::MEDIA);
        let offsite = number(
            "offsite",
            layered(own.offsite.as_ref(), *text, default.offsite.as_ref()),
            built_in::OFFSITE,
        );
        let other_account = number(
            "other_account",
            layered(own.other_account.as_ref(), *text, default.other_account.as_ref()),
            built_in::OTHER_ACCOUNT,
        );
        let other_region = number(
            "other_region",
            layered(own.other_region.as_ref(), *text, default.other_region.as_ref()),
            0,
        );
        let immutable =
            number("immutable", layered(own.immutable.as_ref(), *text, default.immutable.as_ref()), 0);
        let regions = layered(own.regions.as_ref(), *text, default.regions.as_ref());
        if let Some(regions) = regions {
            self.record(format!("{prefix}.policy.regions"), Some(&regions.place()));
            for pattern in &regions.at.value {
                let is_word = |text: &str| {
                    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
                    !text.is_empty() && text.chars().all(is_fine)
                };
                if !is_word(&pattern.value) {
                    Draft::error(
                        Sited { text: regions.text, at: pattern }.place(),
                        format!("{} is no region, and no pattern of one", quoted(&pattern.value)),
                    )
                    .hint("write a region as its provider does, with `*` for any text: \"eu-*\"")
                    .report(self.sink);
                }
            }
            if regions.at.value.is_empty() {
                Draft::error(regions.place(), "no region is allowed, so no copy can be anywhere")
                    .hint("name regions, or leave `regions` out")
                    .report(self.sink);
            }
        }
        let evidence_age = self.duration(
            &format!("{prefix}.policy.evidence_age"),
            layered(own.evidence_age.as_ref(), *text, default.evidence_age.as_ref()),
            built_in::EVIDENCE_AGE,
        );
        PlacementSpec {
            production,
            policy: PlacementPolicy {
                copies,
                media,
                offsite,
                other_account,
                other_region,
                immutable,
                regions: regions.map_or_else(Vec::new, |regions| {
                    regions.at.value.iter().map(|pattern| pattern.value.clone()).collect()
                }),
                evidence_age,
            },
        }
    }

    /// Refuses repositories in regions that the policy of a service does not allow, and says what can be seen from the configuration
    /// alone to be asked in vain.
    pub(super) fn placed(
        &mut self,
        service: (&str, At),
        spec: &PlacementSpec,
        receivers: &[RepositoryName],
        repositories: &[Repository],
        tables: &Tables<'_>,
    ) {
        let (service, key) = service;
        let chosen: Vec<(&Repository, &RepositorySpec)> = receivers
            .iter()
            .filter_map(|name| repositories.iter().find(|repository| repository.name == name.as_str()))
            .filter_map(|repository| Some((repository, repository.spec.as_ref()?)))
            .collect();
        let [own, default] = tables.policy;
        let regions = layered(
            own.and_then(|table| table.regions.as_ref()),
            tables.text,
            default.and_then(|table| table.regions.as_ref()),
        );
        let policy = &spec.policy;
        for (repository, found) in &chosen {
            let Some(regions) = regions.filter(|regions| !regions.at.value.is_empty()) else { break };
            let (message, hint) = match &found.region {
                Some(region) if allows(&policy.regions, region) => continue,
                Some(region) => (
                    format!(
                        "repository {} is in region {}, where no copy of {} may be ({})",
                        quoted(&repository.name),
                        quoted(region),
                        quoted(service),
                        FindingCode::RegionNotAllowed
                    ),
                    "take it out of the service's `repositories`, or allow its region",
                ),
                None => (
                    format!(
                        "repository {} does not say in which region it is, and copies of {} may be in some regions only ({})",
                        quoted(&repository.name),
                        quoted(service),
                        FindingCode::RegionNotAllowed
                    ),
                    "add region = \"…\" to the repository: of a directory, the region that the machine is in",
                ),
            };
            Draft::error(repository.place.clone(), message)
                .with(regions.place(), "allowed")
                .hint(hint)
                .report(self.sink);
        }
        let copies = layered(
            own.and_then(|table| table.copies.as_ref()),
            tables.text,
            default.and_then(|table| table.copies.as_ref()),
        );
        if let Some(copies) = copies.filter(|copies| copies.at.value as usize > chosen.len() + 1) {
            let are = match chosen.len() {
                1 => "the live data and 1 repository are 2".to_owned(),
                many => format!("the live data and {many} repositories are {}", many + 1),
            };
            Draft::warning(
                copies.place(),
                format!("{} copies of {} are asked for, and {are}", copies.at.value, quoted(service)),
            )
            .with(key.clone(), "")
            .hint("add repositories to the service, or ask for fewer")
            .report(self.sink);
        }
        let is_same = |one: Option<&str>, other: Option<&str>| {
            one.is_some_and(|one| other.is_some_and(|other| one.trim().eq_ignore_ascii_case(other.trim())))
        };
        let production = &spec.production;
        let here = |of: fn(&RepositorySpec) -> Option<&str>, at: Option<&str>| {
            !chosen.is_empty() && chosen.iter().all(|(_, found)| is_same(of(found), at))
        };
        // A NAS in the same room, a bucket in the same account.
        for (what, at, word, asked, is_here, why) in [
            (
                "site",
                "at",
                production.site.as_deref(),
                policy.offsite,
                here(|found| Some(&found.site), production.site.as_deref()),
                "one disaster reaches them all",
            ),
            (
                "account",
                "in",
                production.account.as_deref(),
                policy.other_account,
                here(|found| found.account.as_deref(), production.account.as_deref()),
                "who takes it over reaches them all",
            ),
        ] {
            if asked == 0 || !is_here {
                continue;
            }
            let mut draft = Draft::warning(
                key.clone(),
                format!(
                    "every copy of {} is {at} the {what} of the live data, {}",
                    quoted(service),
                    quoted(word.unwrap_or_default())
                ),
            )
            .label(why)
            .hint(format!("add a repository {at} another {what}"));
            for (repository, _) in &chosen {
                draft = draft.with(repository.place.clone(), "");
            }
            draft.report(self.sink);
        }
    }
}
