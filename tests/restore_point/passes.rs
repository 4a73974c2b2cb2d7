//! Whatever happens before, during and between the passes, the copy is the directory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use payram_updater::restore_point::{
    Cancel, Refusal, RestorePointError, finish, finished, pre_copy, survey,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::trees::{Edit, World, edits, until_at_rest, world, write};

const SMALL: [Edit; 6] = [
    Edit::File("base/1/100", 600_000, 1),
    Edit::File("base/1/101", 10, 2),
    Edit::File("pg_wal/000000010000000000000001", 9000, 3),
    Edit::Directory("pg_wal/archive_status"),
    Edit::Link("base/1/link", "101"),
    Edit::File("postgresql.conf", 100, 4),
];

const CHANGES: [Edit; 7] = [
    Edit::Secretly("base/1/100", 9),
    Edit::Append("base/1/101", 5000),
    Edit::Remove("base/1/link"),
    Edit::File("pg_wal/archive_status", 5, 5),
    Edit::Rename("pg_wal/000000010000000000000001", "pg_wal/000000010000000000000002"),
    Edit::Directory("postgresql.conf"),
    Edit::File("base/2/200", 0, 0),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_copy_is_the_directory_whatever_was_done_to_it_meanwhile(
        before in edits(20), during in edits(20), between in edits(20), cut in 0..60_u32,
    ) {
        let world = world().with(&before);
        let (source, cancel) = (world.source(), Cancel::default());
        let (mut calls, mut ahead) = (0, during.iter());
        // Between any two operations of the pass the server does something.
        let pass = world.try_pre_copy(&mut |_| {
            if let Some(edit) = ahead.next() {
                edit.apply(&source);
            }
            calls += 1;
            if calls == cut {
                cancel.cancel();
            }
        }, &cancel);
        prop_assert!(matches!(pass, Ok(_) | Err(RestorePointError::Cancelled)), "{pass:?}");
        let world = world.with(&between);
        world.finish();
        world.assert_exact("after the second pass");
    }
}

#[test]
fn a_directory_at_rest_is_copied_exactly_and_only_what_changed_since_is_read_again() {
    let mut runner = TestRunner::deterministic();
    let mut any = |most| edits(most).new_tree(&mut runner).expect("edits").current();
    let worlds: Vec<(World, Vec<Edit>)> =
        (0..48).map(|_| (world().with(&any(30)), any(6))).collect();
    let quiet = world().with(&SMALL);
    until_at_rest();

    for (index, (world, since)) in worlds.into_iter().enumerate() {
        world.pre_copy();
        let world = world.with(&since);
        world.finish();
        world.assert_exact(&format!("world {index} after {since:?}"));
    }
    let first = quiet.pre_copy();
    assert_eq!((first.files, first.bytes_seen), (6, 3 + 8192 + 600_000 + 10 + 9000 + 100));
    assert_eq!(first.bytes_copied + first.bytes_shared, first.bytes_seen);
    let second = quiet.finish();
    assert_eq!(second.bytes_copied, 0);
    // pg_control, and nothing else.
    assert_eq!(second.bytes_compared + second.bytes_shared, 8192);
    quiet.assert_exact("nothing happened");

    Edit::Secretly("base/1/100", 77).apply(&quiet.source());
    let third = quiet.finish();
    assert_eq!(third.files_copied, 1 + u64::from(third.bytes_shared > 0));
    assert!(third.bytes_copied <= 65_536, "one piece of the file: {third:?}");
    quiet.assert_exact("one byte was changed behind its modification time");
}

#[test]
fn a_large_file_is_exact_and_only_where_it_changed_is_it_written() {
    const SIZE: u64 = (70 << 20) + 5000;
    let world = world();
    let path = world.source().join("base/1/16384");
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    let file = File::create(&path).expect("a file");
    file.set_len(SIZE).expect("a large one");
    until_at_rest();
    world.pre_copy();
    for place in [0, SIZE / 2 - 1, SIZE / 2 + 300_000, SIZE - 1] {
        file.write_all_at(b"x", place).expect("a change");
    }
    let second = world.finish();
    world.assert_exact("changed in four places");
    if second.bytes_shared == 0 {
        assert_eq!((second.bytes_copied, second.files_copied), (3 * 65_536 + 5000, 1));
    }
    file.set_len(SIZE / 2 + 1).expect("cut");
    world.finish();
    world.assert_exact("cut in its second half");
}

#[test]
fn a_ledger_torn_at_any_byte_costs_reading_and_nothing_else() {
    let first = world().with(&SMALL);
    until_at_rest();
    first.pre_copy();
    let ledger = first.beside_the_copy(".state.jsonl");
    let whole = fs::read(&ledger).expect("a ledger");
    let first = first.with(&CHANGES);
    for length in (0..whole.len()).step_by(7) {
        fs::write(&ledger, &whole[..length]).expect("torn");
        first.finish();
        first.assert_exact(&format!("torn at byte {length} of {}", whole.len()));
    }
}

#[test]
fn a_first_pass_that_is_cut_anywhere_is_mended_by_the_next() {
    let mut points = 0;
    loop {
        let world = world().with(&SMALL);
        let is_cut =
            cut_after(points, |progress, cancel| world.try_pre_copy(progress, cancel).map(drop));
        let world = world.with(&CHANGES);
        world.pre_copy();
        world.finish();
        world.assert_exact(&format!("cut at operation {points}"));
        if !is_cut {
            break;
        }
        points += 1;
    }
    assert!(points > 10, "{points} operations");
}

#[test]
fn a_second_pass_that_is_cut_anywhere_is_no_restore_point_and_is_mended_by_running_it_again() {
    let mut points = 0;
    loop {
        let world = world().with(&SMALL);
        world.pre_copy();
        let world = world.with(&CHANGES);
        let is_cut =
            cut_after(points, |progress, cancel| world.try_finish(progress, cancel).map(drop));
        let sealed = finished(&world.copy()).expect("readable").is_some();
        assert_eq!(sealed, !is_cut, "cut at operation {points}");
        world.finish();
        world.assert_exact(&format!("cut at operation {points}"));
        if !is_cut {
            break;
        }
        points += 1;
    }
    assert!(points > 10, "{points} operations");
}

/// Runs a pass that is cancelled at its n-th operation; whether it had so many.
fn cut_after(
    operations: u32,
    pass: impl FnOnce(&mut (dyn FnMut(u64) + Send), &Cancel) -> Result<(), RestorePointError>,
) -> bool {
    let cancel = Cancel::default();
    let mut calls = 0;
    let result = pass(
        &mut |_| {
            if calls == operations {
                cancel.cancel();
            }
            calls += 1;
        },
        &cancel,
    );
    match result {
        Ok(()) => false,
        Err(RestorePointError::Cancelled) => true,
        Err(error) => panic!("cut at operation {operations}: {error}"),
    }
}

#[test]
fn a_source_that_still_changes_is_no_restore_point() {
    for victim in [
        Edit::Append("base/1/100", 1),
        Edit::Secretly("base/1/101", 9),
        Edit::File("base/1/999", 1, 1),
        Edit::Remove("postgresql.conf"),
    ] {
        let mut points = 0;
        loop {
            let world = world().with(&SMALL);
            let source = world.source();
            let mut calls = 0;
            let result = world.try_finish(
                &mut |_| {
                    if calls == points {
                        victim.apply(&source);
                    }
                    calls += 1;
                },
                &Cancel::default(),
            );
            if calls <= points {
                break;
            }
            assert!(
                matches!(result, Err(RestorePointError::Moving { .. })),
                "{victim:?} at operation {points}: {result:?}"
            );
            assert_eq!(finished(&world.copy()).expect("readable"), None);
            points += 1;
        }
    }
}

#[test]
fn what_only_a_running_server_has_is_left_out_and_a_killed_one_is_noted() {
    let world = world().with(&SMALL);
    write(&world.source().join("postmaster.pid"), b"1\n");
    write(&world.source().join(".s.PGSQL.5432.lock"), b"1\n");
    let _socket = UnixListener::bind(world.source().join(".s.PGSQL.5432")).expect("a socket");
    assert!(survey(&world.source()).expect("a survey").has_postmaster_pid);
    world.pre_copy();
    let report = world.finish();
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert!(report.notes[0].starts_with("postmaster.pid was left behind"));
    for name in ["postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
        assert!(!world.copy().join(name).exists(), "{name}");
    }
    world.verify().expect("as its manifest says");
}

#[test]
fn a_survey_counts_what_is_there() {
    let world = world().with(&SMALL);
    fs::hard_link(world.source().join("base/1/101"), world.source().join("base/1/102"))
        .expect("a second name");
    let survey = survey(&world.source()).expect("a survey");
    assert_eq!((survey.files, survey.directories, survey.hard_linked), (7, 6, 2));
    assert_eq!(survey.bytes, 3 + 8192 + 600_000 + 20 + 9000 + 100);
    assert_eq!(survey.links, [("base/1/link".to_owned(), "101".to_owned())]);
    assert_eq!(survey.postgres_major, 15);
    assert!(survey.space_needed() > survey.bytes);
}

#[test]
fn what_can_not_be_copied_faithfully_is_refused_by_name_and_by_every_pass() {
    let target = || "/mnt/fast".to_owned();
    let cases = [
        (Edit::Link("pg_tblspc/16400", "/mnt/fast"), Refusal::Tablespace { target: target() }),
        (Edit::Link("pg_wal", "/mnt/fast"), Refusal::WalElsewhere { target: target() }),
        (Edit::Link("base/5", "/mnt/fast"), Refusal::PartElsewhere { target: target() }),
    ];
    for (edit, expected) in cases {
        let Edit::Link(name, _) = edit else { unreachable!("links") };
        let world = world().with(std::slice::from_ref(&edit));
        let errors = [
            survey(&world.source()).expect_err("refused"),
            world.try_pre_copy(&mut |_| {}, &Cancel::default()).expect_err("refused"),
            world.try_finish(&mut |_| {}, &Cancel::default()).expect_err("refused"),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("/mnt/fast"), "{text}");
            let RestorePointError::Refused { path, refusal } = error else { panic!("{text}") };
            assert_eq!((path, refusal), (world.source().join(name), expected.clone()));
        }
    }
    let world = world();
    let pipe = world.source().join("base.pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a pipe");
    let error = survey(&world.source()).expect_err("refused");
    assert_eq!(error.to_string(), format!("{} can't be copied: it is a pipe", pipe.display()));
    fs::remove_file(&pipe).expect("removed");
    fs::write(world.source().join("PG_VERSION"), "fifteen\n").expect("written");
    let error = survey(&world.source()).expect_err("refused");
    assert!(error.to_string().contains("its PG_VERSION says \"fifteen\""), "{error}");
}

#[test]
fn a_copy_that_could_not_be_put_back_by_a_rename_is_refused_before_anything_is_written() {
    let world = world();
    let go = |copy: &Path| {
        let error = pre_copy(&world.source(), copy, &mut |_| {}, &Cancel::default());
        error.expect_err("refused")
    };
    let inside = world.source().join(".data.payram-restore-1");
    assert!(matches!(go(&inside), RestorePointError::Refused { refusal: Refusal::CopyInside, .. }));
    assert!(!inside.exists());
    let misnamed = world.source().with_file_name("data.bak");
    assert!(matches!(go(&misnamed), RestorePointError::NotOurs { .. }));
    assert!(!misnamed.exists());

    let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
    let elsewhere = other.path().join(".data.payram-restore-1");
    let result = finish(&world.source(), &elsewhere, &mut |_| {}, &Cancel::default());
    match result {
        Err(RestorePointError::Refused { refusal: Refusal::CopyElsewhere { .. }, .. }) => {
            assert!(!elsewhere.exists());
        }
        // The temporary directory may be there too.
        Ok(_) => {}
        Err(error) => panic!("{error}"),
    }
}
