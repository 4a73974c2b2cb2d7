//! A restore that was cut anywhere is ended by running it again, and nothing is ever lost by it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use payram_updater::restore_point::{
    Cancel, Place, RestorePointError, copy_name, discard, finish, finished, first_difference,
    is_back, kept_before, place, places, pre_copy, restore, verify,
};

use crate::trees::{Edit, World, look, world, write};

/// A restore point, and a failed version that wrote to the directory since.
fn failed_version() -> World {
    let world = world().with(&[
        Edit::File("base/1/100", 300_000, 1),
        Edit::File("base/1/101", 10, 2),
        Edit::Link("log", "/var/log/postgresql"),
    ]);
    world.pre_copy();
    world.finish();
    world.with(&[Edit::Append("base/1/100", 8192), Edit::Remove("base/1/101")])
}

#[test]
fn the_copy_takes_the_directorys_place_and_the_failed_one_is_kept() {
    let world = failed_version();
    let (good, bad) = (look(&world.copy()), look(&world.source()));
    world.verify().expect("whole");
    let is_back = || is_back(&world.source(), &world.copy(), &world.failed()).expect("looked");
    assert!(!is_back());
    world.restore().expect("put back");
    assert!(is_back());
    assert_eq!(look(&world.source()), good);
    assert_eq!(look(&world.failed()), bad);
    assert!(!world.copy().exists());

    // The old version serves from it by now.
    Edit::Append("base/1/101", 10).apply(&world.source());
    let serving = look(&world.source());
    world.restore().expect("it is done already");
    assert_eq!((look(&world.source()), look(&world.failed())), (serving, bad));

    discard(&world.copy()).expect("tidied");
    let left: Vec<_> = fs::read_dir(world.source().parent().expect("a parent"))
        .expect("a listing")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| name.contains(".payram-restore-"))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn only_finished_copies_of_the_same_directory_are_kept_long_enough() {
    let world = failed_version();
    let source = world.source().canonicalize().expect("a path");
    let later = SystemTime::now() + Duration::from_secs(60);
    let kept = |moment| kept_before(&source, moment).expect("looked");
    let names = |kept: Vec<std::path::PathBuf>| -> Vec<Option<std::ffi::OsString>> {
        kept.iter().map(|path| path.file_name().map(ToOwned::to_owned)).collect()
    };
    assert_eq!(names(kept(later)), [world.copy().file_name().map(ToOwned::to_owned)]);
    assert!(kept(SystemTime::now() - Duration::from_secs(60)).is_empty());
    // Of another directory of that name, and one that is not finished.
    let manifest = format!("{}.manifest.json", world.copy().display());
    let text = fs::read_to_string(&manifest).expect("a manifest");
    let of_another = text.replace(&world.source().display().to_string(), "/srv/other/postgres");
    assert_ne!(of_another, text, "it names its source");
    fs::write(&manifest, of_another).expect("written");
    assert!(kept(later).is_empty());
    fs::remove_file(&manifest).expect("removed");
    assert!(kept(later).is_empty());
}

#[test]
fn a_restore_that_was_cut_is_ended_by_running_it_again() {
    let before_the_first_rename = |world: &World| {
        fs::rename(world.source(), world.copy()).expect("undone");
        fs::rename(world.failed(), world.source()).expect("undone");
    };
    let between_the_renames = |world: &World| {
        fs::rename(world.source(), world.copy()).expect("undone");
    };
    // Docker makes the missing source of a bind mount, when a container is started too early.
    let with_an_empty_directory = |world: &World| {
        fs::rename(world.source(), world.copy()).expect("undone");
        fs::create_dir(world.source()).expect("made");
    };
    let after_both = |_: &World| {};
    type Cut<'a> = &'a dyn Fn(&World);
    let cuts: [(&str, Cut<'_>); 4] = [
        ("before the first rename", &before_the_first_rename),
        ("between the renames", &between_the_renames),
        ("with an empty directory made by the engine", &with_an_empty_directory),
        ("after both", &after_both),
    ];
    for (when, cut) in cuts {
        let world = failed_version();
        let (good, bad) = (look(&world.copy()), look(&world.source()));
        world.restore().expect("put back");
        cut(&world);
        world.restore().unwrap_or_else(|error| panic!("cut {when}: {error}"));
        assert_eq!(look(&world.source()), good, "cut {when}");
        assert_eq!(look(&world.failed()), bad, "cut {when}");
        assert!(!world.copy().exists(), "cut {when}");
    }
}

#[test]
fn a_restore_that_finds_a_strangers_directory_changes_nothing() {
    let world = failed_version();
    world.restore().expect("put back");
    fs::rename(world.source(), world.copy()).expect("cut between the renames");
    fs::create_dir(world.source()).expect("made");
    write(&world.source().join("payments"), b"somebody's");
    let all = look(world.source().parent().expect("a parent"));
    let error = world.restore().expect_err("unexpected");
    assert!(matches!(error, RestorePointError::Unexpected { .. }), "{error}");
    assert!(error.to_string().ends_with("nothing was changed"), "{error}");
    assert_eq!(look(world.source().parent().expect("a parent")), all);

    // The copy is the only good directory there is.
    let error = discard(&world.copy()).expect_err("refused");
    assert!(matches!(error, RestorePointError::Unexpected { .. }), "{error}");
    assert_eq!(look(world.source().parent().expect("a parent")), all);
}

#[test]
fn a_restore_is_refused_when_it_would_lose_something() {
    let unfinished = world();
    unfinished.pre_copy();
    let error = unfinished.restore().expect_err("refused");
    assert!(matches!(error, RestorePointError::NotFinished { .. }), "{error}");

    let world = failed_version();
    fs::create_dir(world.failed()).expect("made");
    let error = world.restore().expect_err("refused");
    assert!(error.to_string().contains("is there already"), "{error}");
    fs::remove_dir(world.failed()).expect("removed");

    let linked = world.source().with_file_name("elsewhere");
    fs::rename(world.source(), &linked).expect("moved");
    symlink(&linked, world.source()).expect("a link");
    let error = world.restore().expect_err("refused");
    assert!(matches!(error, RestorePointError::Unexpected { .. }), "{error}");
    assert!(world.copy().exists() && linked.exists());
}

#[test]
fn a_damaged_copy_is_found_by_name_before_it_is_put_back() {
    type Damage<'a> = &'a dyn Fn(&World);
    let damages: [(&str, Damage<'_>); 5] = [
        ("its checksum is", &|world| {
            Edit::Secretly("base/1/100", 99).apply(&world.copy());
        }),
        ("its size is", &|world| Edit::Truncate("base/1/100", 5).apply(&world.copy())),
        ("it is missing", &|world| Edit::Remove("base/1/100").apply(&world.copy())),
        ("it is not in the manifest", &|world| {
            Edit::File("base/1/102", 5, 5).apply(&world.copy());
        }),
        ("it has become something else", &|world| {
            Edit::Link("base/1/100", "101").apply(&world.copy());
        }),
    ];
    for (what, damage) in damages {
        let world = failed_version();
        world.verify().expect("whole");
        damage(&world);
        let error = world.verify().expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
    let world = failed_version();
    let sealed = finished(&world.copy()).expect("readable").expect("finished").manifest_sha256;
    let check =
        |expected: &str| verify(&world.copy(), Some(expected), &mut |_| {}, &Cancel::default());
    check(&sealed).expect("the journal's checksum");
    assert!(matches!(check("00"), Err(RestorePointError::Damaged { .. })));
}

/// Changes everything in a directory and itself, as `chown -R` does.
fn all_of(directory: &Path, change: &dyn Fn(&Path)) {
    for path in look(directory).keys() {
        change(&directory.join(path));
    }
}

#[test]
fn a_copy_whose_owners_modes_and_times_were_changed_is_proved_by_its_contents_and_put_right() {
    let world = failed_version();
    let good = look(&world.copy());
    let is_root = rustix::process::geteuid().is_root();
    all_of(&world.copy(), &|path| {
        if !path.is_symlink() {
            let mode = if path.is_dir() { 0o777 } else { 0o666 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
            let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            let file = fs::File::open(path).expect("opened");
            file.set_modified(long_ago).expect("a time");
        }
        if is_root {
            lchown(path, Some(65534), Some(65534)).expect("an owner");
        }
    });
    assert_ne!(look(&world.copy()), good);
    world.verify().expect("its contents are what they were");
    let put_right = world.restore().expect("put back");
    assert_eq!(put_right, good.len() as u64 - u64::from(!is_root), "each of them");
    assert_eq!(look(&world.source()), good);
}

#[test]
fn a_restore_that_was_cut_after_the_failed_directory_left_puts_owners_right_too() {
    let world = failed_version();
    let good = look(&world.copy());
    world.restore().expect("put back");
    fs::rename(world.source(), world.copy()).expect("cut between the renames");
    let file = world.copy().join("base/1/100");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).expect("a mode");
    assert_eq!(world.restore().expect("ended"), 1);
    assert_eq!(look(&world.source()), good);
}

#[test]
fn a_copy_comes_back_from_a_directory_further_up() {
    let world = world().with(&[Edit::File("base/1/100", 9000, 1)]);
    // The mount of the container, in which the directory lies.
    let mount = world.source().with_file_name("mount");
    let source = mount.join("db/postgres");
    fs::create_dir_all(source.parent().expect("a parent")).expect("made");
    fs::rename(world.source(), &source).expect("moved");
    let found = place(&source, &[mount.clone(), source.clone()]).expect("a place");
    let above = mount.parent().expect("a parent").canonicalize().expect("a path");
    assert_eq!(found, Place { directory: above.clone(), reached_by: None });
    let name = copy_name(&source, "0198-1");
    let copy = found.directory.join(&name);
    assert!(places(&source, &name).expect("places").contains(&copy));

    let (never, mut nothing) = (Cancel::default(), |_| {});
    pre_copy(&source, &copy, &mut nothing, &never).expect("a first pass");
    finish(&source, &copy, &mut nothing, &never).expect("a second pass");
    let good = look(&copy);
    Edit::Append("base/1/100", 10).apply(&source);
    let failed = source.with_file_name("postgres.failed-0198-1");
    verify(&copy, None, &mut nothing, &never).expect("whole");
    restore(&source, &copy, &failed).expect("put back");
    assert_eq!(look(&source), good);
    assert!(failed.join("base/1/100").exists() && !copy.exists());
    for left in places(&source, &name).expect("places") {
        discard(&left).expect("tidied");
    }
    let names = fs::read_dir(&above).expect("a listing").map(|one| one.expect("an entry"));
    let copies: Vec<_> =
        names.filter(|one| one.file_name().to_string_lossy().contains("0198-1")).collect();
    assert!(copies.is_empty(), "{copies:?}");
}

#[test]
fn a_directory_that_no_server_touched_is_told_from_one_that_was_written_to() {
    let world = world().with(&[Edit::File("base/1/100", 9000, 1)]);
    world.finish();
    let difference = || first_difference(&world.source(), &world.copy()).expect("looks");
    assert_eq!(difference(), None);

    // A lock file that came and went, and a program that set owners to what they were.
    write(&world.source().join("postmaster.pid"), b"1\n");
    fs::remove_file(world.source().join("postmaster.pid")).expect("removed");
    let file = world.source().join("base/1/100");
    let mode = fs::metadata(&file).expect("a mode").permissions();
    fs::set_permissions(&file, mode).expect("set");
    assert_eq!(difference(), None);

    Edit::Secretly("base/1/100", 9).apply(&world.source());
    assert_eq!(difference().as_deref(), Some("base/1/100: its content differs"));
    Edit::Append("base/1/100", 1).apply(&world.source());
    assert_eq!(difference().as_deref(), Some("base/1/100: its size is 9001, expected 9000"));
    Edit::Remove("base/1/100").apply(&world.source());
    assert_eq!(difference().as_deref(), Some("base/1/100: it is missing"));
}

#[test]
fn only_a_copy_is_ever_discarded_and_twice_is_fine() {
    let world = failed_version();
    let error = discard(&world.source()).expect_err("refused");
    assert!(matches!(error, RestorePointError::NotOurs { .. }), "{error}");
    let treasure = world.source().with_file_name("treasure");
    fs::create_dir(&treasure).expect("made");
    write(&treasure.join("wallet"), b"keys");
    // Links to what is not ours, in the copy and in the copy's place.
    symlink(&treasure, world.copy().join("base/link")).expect("a link");
    discard(&world.copy()).expect("removed");
    discard(&world.copy()).expect("nothing there");
    symlink(&treasure, world.copy()).expect("a link");
    let error = discard(&world.copy()).expect_err("refused");
    assert!(matches!(error, RestorePointError::NotOurs { .. }), "{error}");
    assert_eq!(fs::read(treasure.join("wallet")).expect("there"), b"keys");
    assert!(world.source().join("base/1/100").exists());
}

/// Something mounted, until the test ends.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// None where this process may not mount.
    fn at(path: &Path, arguments: &[&str]) -> Option<Self> {
        let done = std::process::Command::new("mount").args(arguments).arg(path).output();
        let is_mounted = done.is_ok_and(|output| output.status.success());
        assert!(is_mounted || !rustix::process::geteuid().is_root(), "root may mount");
        if !is_mounted {
            println!("not run: nothing can be mounted at {}", path.display());
        }
        is_mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg("--lazy").arg(&self.0).output();
        if !done.is_ok_and(|output| output.status.success()) {
            eprintln!("{} is not unmounted", self.0.display());
        }
    }
}

/// A data directory that is a mount point: of a file system of its own, or of the same one.
fn on_a_mount(is_of_its_own: bool) -> Option<(World, Mounted)> {
    let world = world();
    let source = world.source();
    let mounted = match is_of_its_own {
        true => Mounted::at(&source, &["-t", "tmpfs", "tmpfs"])?,
        false => Mounted::at(&source, &["--bind", source.to_str().expect("text")])?,
    };
    fs::create_dir_all(source.join("global")).expect("a data directory");
    write(&source.join("PG_VERSION"), b"15\n");
    write(&source.join("global/pg_control"), &[7; 8192]);
    let world = world.with(&[
        Edit::File("base/1/100", 300_000, 1),
        Edit::File("base/1/101", 10, 2),
        Edit::Link("log", "/var/log/postgresql"),
    ]);
    Some((world, mounted))
}

#[test]
fn a_mount_point_comes_back_by_its_contents_and_what_the_failed_version_left_is_kept() {
    for is_of_its_own in [true, false] {
        let Some((world, _mounted)) = on_a_mount(is_of_its_own) else { return };
        world.pre_copy();
        world.finish();
        let world = world.with(&[
            Edit::Append("base/1/100", 8192),
            Edit::Remove("base/1/101"),
            Edit::File("base/1/102", 20, 3),
        ]);
        let (good, bad) = (look(&world.copy()), look(&world.source()));
        world.verify().expect("whole");
        world.restore().expect("put back");
        assert_eq!(look(&world.source()), good, "{is_of_its_own}");
        assert_eq!(look(&world.failed()), bad, "{is_of_its_own}");

        // The old version serves from it by now.
        Edit::Append("base/1/101", 10).apply(&world.source());
        let serving = look(&world.source());
        world.restore().expect("it is done already");
        assert_eq!((look(&world.source()), look(&world.failed())), (serving, bad));
        discard(&world.copy()).expect("tidied");
        assert!(!world.copy().exists());
        let left = fs::read_dir(world.source().parent().expect("a parent")).expect("a listing");
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left.len(), 2, "the directory and the failed one: {left:?}");
    }
}

#[test]
fn a_way_back_by_contents_that_was_cut_is_brought_to_its_end() {
    let Some((world, _mounted)) = on_a_mount(true) else { return };
    world.pre_copy();
    world.finish();
    let world = world.with(&[Edit::Append("base/1/100", 8192)]);
    let bad = look(&world.source());
    world.restore().expect("put back");
    // Cut in the middle of it: the note says so, and the directory holds some of both.
    let note = world.beside_the_copy(".restore.json");
    let text = fs::read_to_string(&note).expect("a note");
    fs::write(&note, text.replace("\"done\"", "\"bringingBack\"")).expect("written");
    Edit::Append("base/1/100", 4096).apply(&world.source());
    Edit::Remove("PG_VERSION").apply(&world.source());
    assert!(discard(&world.copy()).is_err(), "it is all there is");
    world.restore().expect("put back");
    assert_eq!((look(&world.source()), look(&world.failed())), (look(&world.copy()), bad));
    // Cut while what the failed version left is copied aside.
    fs::remove_dir_all(world.failed()).expect("removed");
    fs::write(&note, text.replace("\"done\"", "\"keeping\"")).expect("written");
    world.restore().expect("put back");
    assert_eq!(
        (look(&world.source()), look(&world.failed())),
        (look(&world.copy()), look(&world.copy()))
    );
}
