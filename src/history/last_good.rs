//! Which version was good last, and which container it is: the one that an upgrade verified, the
//! old one that it verified again on its way back, or the one that an operator recorded by `sync`,
//! whichever came last.
//!
//! It is what the database was written by. An older version started on it may not understand
//! it, so that `recover` starts this container or none.

use crate::clock::Timestamp;
use crate::journal::{GoodRows, JournalError, Reader, Recorded, Seq, VerdictRows};
use crate::machine::Phase;

/// How it is known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// An upgrade verified it.
    Verified,
    /// An upgrade that went back verified it again.
    WentBack,
    /// An operator recorded it (`sync`).
    Recorded,
}

impl By {
    /// The end of a sentence that begins with the version.
    pub fn sentence(self) -> &'static str {
        match self {
            By::Verified | By::WentBack => "was verified last",
            By::Recorded => "was recorded as good last (sync)",
        }
    }
}

/// What was good last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastGood {
    /// The version; none when it never said one.
    pub version: Option<String>,
    /// Its container's id; none in what an earlier program recorded.
    pub container_id: Option<String>,
    /// The name that its container had then.
    pub container_name: String,
    /// Its image's id; none in what an earlier program recorded.
    pub image_id: Option<String>,
    /// How it is known.
    pub by: By,
    /// When.
    pub at: Timestamp,
    /// The row that says so.
    pub seq: Seq,
}

impl LastGood {
    /// Whether it is exactly this.
    pub fn is(&self, version: &str, container_id: &str, image_id: &str) -> bool {
        self.version.as_deref() == Some(version)
            && self.container_id.as_deref() == Some(container_id)
            && self.image_id.as_deref() == Some(image_id)
    }
}

/// What was good last, by these rows. Pure.
pub fn last_good(rows: &GoodRows) -> Option<LastGood> {
    let verified = rows.verdict.as_ref().map(verified);
    let recorded = rows.recorded.as_ref().map(recorded);
    verified.into_iter().chain(recorded).max_by_key(|good| good.seq)
}

/// What was good last, by this journal.
///
/// # Errors
/// When it can't be read.
pub fn read_last_good(reader: &Reader) -> Result<Option<LastGood>, JournalError> {
    reader.good_rows().map(|rows| last_good(&rows))
}

fn verified(rows: &VerdictRows) -> LastGood {
    let VerdictRows { seq, at, to, hop, image, next } = rows;
    let name = hop.old.name.clone();
    // The old version's container, but for an upgrade that came to its end.
    match to {
        Phase::Verified => LastGood {
            version: Some(hop.version.clone()),
            container_id: next.as_ref().map(|next| next.id.clone()),
            container_name: name,
            image_id: image.as_ref().map(|image| image.id.clone()),
            by: By::Verified,
            at: *at,
            seq: *seq,
        },
        Phase::RolledBack
        | Phase::Planned
        | Phase::BackedUp
        | Phase::Pulled
        | Phase::Swapped
        | Phase::RollingBack
        | Phase::NeedsOperator => LastGood {
            version: hop.from.clone(),
            container_id: Some(hop.old.id.clone()),
            container_name: name,
            image_id: Some(hop.old.image_id.clone()),
            by: By::WentBack,
            at: *at,
            seq: *seq,
        },
    }
}

fn recorded(row: &Recorded) -> LastGood {
    LastGood {
        version: Some(row.version.clone()),
        container_id: row.container_id.clone(),
        container_name: row.container.clone(),
        image_id: row.image_id.clone(),
        by: By::Recorded,
        at: row.at,
        seq: row.seq,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(seq: Seq, to: Phase) -> VerdictRows {
        let hop = serde_json::json!({
            "old": {"id": "old", "name": "payram", "imageId": "sha256:1", "specFile": "/spec",
                "restartPolicy": {"Name": "always"}},
            "from": "1.9.6", "fromRules": {"kind": "legacy"}, "version": "1.9.8",
            "target": {"repo": "payramapp/payram", "tag": "1.9.8"}, "rules": {"kind": "legacy"},
        });
        let read = |value| serde_json::from_value(value).expect("a hop");
        VerdictRows {
            seq,
            at: Timestamp::from_millis(seq),
            to,
            hop: read(hop),
            image: serde_json::from_value(serde_json::json!({"id": "sha256:2", "digest": null}))
                .ok(),
            next: serde_json::from_value(serde_json::json!({"id": "next", "temporaryName": "t"}))
                .ok(),
        }
    }

    fn sync(seq: Seq, version: &str) -> Recorded {
        Recorded {
            seq,
            at: Timestamp::from_millis(seq),
            version: version.into(),
            container: "payram".into(),
            container_id: Some("by hand".into()),
            image_id: Some("sha256:3".into()),
        }
    }

    fn said(verdict: Option<VerdictRows>, recorded: Option<Recorded>) -> Option<String> {
        let good = last_good(&GoodRows { verdict, recorded })?;
        let (version, id) = (good.version.unwrap_or_default(), good.container_id);
        Some(format!("{version} in {} {:?}", id.unwrap_or_default(), good.by))
    }

    #[test]
    fn what_came_last_counts_whichever_way_it_came() {
        let verified = || Some(verdict(10, Phase::Verified));
        assert_eq!(said(None, None), None);
        assert_eq!(said(verified(), None).as_deref(), Some("1.9.8 in next Verified"));
        let back = said(Some(verdict(10, Phase::RolledBack)), None);
        assert_eq!(back.as_deref(), Some("1.9.6 in old WentBack"));
        for version in ["2.0.0", "1.9.7"] {
            let good = said(verified(), Some(sync(11, version))).expect("recorded");
            assert_eq!(good, format!("{version} in by hand Recorded"), "higher or lower");
        }
        let later = said(verified(), Some(sync(9, "2.0.0")));
        assert_eq!(later.as_deref(), Some("1.9.8 in next Verified"), "an upgrade came after it");
        let alone = said(None, Some(sync(1, "2.0.0")));
        assert_eq!(alone.as_deref(), Some("2.0.0 in by hand Recorded"), "without any upgrade");
    }

    #[test]
    fn the_same_version_in_another_container_is_something_new() {
        let good = last_good(&GoodRows { verdict: None, recorded: Some(sync(1, "2.0.0")) });
        let good = good.expect("recorded");
        assert!(good.is("2.0.0", "by hand", "sha256:3"));
        assert!(!good.is("2.0.0", "another", "sha256:3"));
        assert!(!good.is("2.0.1", "by hand", "sha256:3"));
        let earlier = LastGood { container_id: None, image_id: None, ..good };
        assert!(!earlier.is("2.0.0", "by hand", "sha256:3"), "it is not known to be the same");
    }
}
