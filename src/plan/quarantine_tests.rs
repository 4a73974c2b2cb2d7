//! Tests of `quarantine`: what the registry says against what failed here.

use super::*;
use crate::clock::Timestamp;
use crate::journal::{Release, Released};
use crate::machine::facts::{PulledImage, TargetImage};

const IMAGE: &str = "payramapp/payram:2.0.0";

fn failed(tag: &str, digest: Option<&str>) -> Quarantined {
    Quarantined {
        version: tag.to_owned(),
        target: TargetImage { repo: "payramapp/payram".to_owned(), tag: tag.to_owned() },
        image: PulledImage { id: "sha256:id".to_owned(), digest: digest.map(str::to_owned) },
        failed: Timestamp::from_millis(1_769_860_800_250),
        failure: Failure::new(FailureCode::HealthcheckFailed, "health answered 500"),
        released: None,
    }
}

#[test]
fn a_tag_that_still_names_the_image_that_failed_is_quarantined() {
    let found = judge(IMAGE, Ok("sha256:a"), &[failed("2.0.0", Some("sha256:a"))]).expect("found");
    assert_eq!((found.digest.as_str(), found.unsure.as_deref()), ("sha256:a", None));
    assert_eq!(
        refusal(&found).to_string(),
        "2.0.0 is quarantined: its image sha256:a failed here at 2026-01-31T12:00:00.250Z \
         with HEALTHCHECK_FAILED: health answered 500; it is offered again when its tag names \
         another image, or after payram-updater recover --clear-quarantine 2.0.0"
    );
    assert_eq!(refusal(&found).code, FailureCode::VersionQuarantined);
}

#[test]
fn a_digest_is_shortened_for_a_person_and_whole_for_a_program() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let found = judge(IMAGE, Ok(&digest), &[failed("2.0.0", Some(&digest))]).expect("found");
    assert_eq!(found.digest, digest);
    assert!(sentence(&found).contains("its image sha256:0123456789ab failed here"), "{found:?}");
}

#[test]
fn a_tag_that_names_another_image_now_is_offered() {
    assert_eq!(judge(IMAGE, Ok("sha256:b"), &[failed("2.0.0", Some("sha256:a"))]), None);
}

#[test]
fn an_image_that_failed_is_quarantined_under_every_tag() {
    let found = judge("other/repo:2.0.1", Ok("sha256:a"), &[failed("2.0.0", Some("sha256:a"))]);
    assert_eq!(found.expect("found").version, "2.0.0");
}

#[test]
fn where_the_registry_can_not_be_asked_the_tag_stays_quarantined_and_the_plan_says_why() {
    let away = "connection refused".to_owned();
    let entries = [failed("2.0.0", Some("sha256:a"))];
    let found = judge(IMAGE, Err(&away), &entries).expect("the safe side");
    assert!(refusal(&found).message.contains("connection refused"), "{}", refusal(&found));
    assert_eq!(judge("payramapp/payram:2.0.1", Err(&away), &entries), None, "another tag");
}

#[test]
fn an_image_without_a_digest_stays_quarantined_by_its_tag() {
    let found = judge(IMAGE, Ok("sha256:b"), &[failed("2.0.0", None)]).expect("found");
    assert!(found.unsure.is_some());
    assert_eq!(found.digest, "sha256:id");
    assert_eq!(judge("payramapp/payram:2.0.1", Ok("sha256:b"), &[failed("2.0.0", None)]), None);
}

#[test]
fn a_quarantine_that_has_ended_is_no_reason_any_more() {
    let released = Some(Released { at: Timestamp::from_millis(0), by: Release::Cleared });
    let entry = Quarantined { released, ..failed("2.0.0", Some("sha256:a")) };
    assert_eq!(judge(IMAGE, Ok("sha256:a"), std::slice::from_ref(&entry)), None);
    assert_eq!(judge(IMAGE, Err(&"away".to_owned()), &[entry]), None);
}
