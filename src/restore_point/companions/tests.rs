//! What is copied of a mount, and how it comes back.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A mount with a key store, a link, the database and a log, and room for copies.
struct Mount {
    _home: tempfile::TempDir,
    companion: Companion,
    copy: PathBuf,
    aside: PathBuf,
}

impl Mount {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let root = home.path().canonicalize().expect("its path");
        let source = root.join("W");
        fs::create_dir_all(source.join("keys/old")).unwrap();
        fs::create_dir_all(source.join("db/postgres")).unwrap();
        fs::write(source.join("keys/store.json"), "v1").unwrap();
        fs::write(source.join("keys/old/a"), "a").unwrap();
        fs::write(source.join("growing"), "one\n").unwrap();
        fs::write(source.join("core.log"), "line\n").unwrap();
        fs::write(source.join("db/postgres/PG_VERSION"), "15").unwrap();
        fs::create_dir(source.join("db/postgres.failed-0-1")).unwrap();
        fs::write(source.join("db/postgres.failed-0-1/PG_VERSION"), "15").unwrap();
        symlink("store.json", source.join("keys/current")).unwrap();
        let companion = Companion {
            apart: vec![source.join("db/postgres")],
            apart_prefix: Some(format!("{}/db/postgres.failed-", source.display())),
            source,
            destination: "/root/payram".into(),
            is_scratch: |path| path.ends_with(".log"),
        };
        let (copy, aside) = (root.join("state/kept"), root.join("state/failed"));
        Self { _home: home, companion, copy, aside }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.companion.source.join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    fn keep(&self) -> KeptFiles {
        keep(&self.companion, &self.copy, false, &Cancel::default()).unwrap().expect("small")
    }

    fn put_back(&self, kept: &KeptFiles, way: Way) -> PutBack {
        put_back(&self.companion, &self.copy, &kept.sha256, &self.aside, way).unwrap()
    }
}

#[test]
fn what_a_failed_version_did_to_files_is_undone_and_its_own_are_kept_aside() {
    let mount = Mount::new();
    let kept = mount.keep();
    assert_eq!(kept.files, 4, "neither the database nor the log");
    fs::write(mount.at("keys/store.json"), "version two").unwrap();
    fs::remove_file(mount.at("keys/current")).unwrap();
    fs::remove_dir_all(mount.at("keys/old")).unwrap();
    fs::create_dir(mount.at("new")).unwrap();
    fs::write(mount.at("new/flag"), "migrated").unwrap();
    fs::write(mount.at("db/postgres/PG_VERSION"), "17").unwrap();
    fs::write(mount.at("core.log"), "line\nanother\n").unwrap();
    fs::set_permissions(mount.at("growing"), fs::Permissions::from_mode(0o600)).unwrap();
    let done = mount.put_back(&kept, Way::Exact);
    assert_eq!(done.failed, Vec::<String>::new());
    assert_eq!(
        done.contents,
        [
            "/root/payram/keys/current",
            "/root/payram/keys/old",
            "/root/payram/keys/old/a",
            "/root/payram/keys/store.json"
        ]
    );
    assert_eq!(done.moved, ["/root/payram/new/flag"]);
    assert_eq!(mount.read("keys/store.json"), "v1");
    assert_eq!(mount.read("keys/current"), "v1", "through the link");
    assert_eq!(mount.read("keys/old/a"), "a");
    assert!(!mount.at("new").exists());
    assert_eq!(mount.read("db/postgres/PG_VERSION"), "17", "not this one's affair");
    assert_eq!(mount.read("core.log"), "line\nanother\n");
    let mode = fs::metadata(mount.at("growing")).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode, done.dressed > 0), (0o644, true));
    let aside = |path: &str| fs::read_to_string(mount.aside.join(path)).expect("kept");
    assert_eq!(aside("changed/keys/store.json"), "version two");
    assert_eq!(aside("added/new/flag"), "migrated");
    // Again, as after a crash at its end: nothing to do, and the same is told.
    let again = mount.put_back(&kept, Way::Exact);
    assert_eq!((again.moved, again.failed), (done.moved, Vec::new()));
    assert!(again.contents.contains(&"/root/payram/keys/store.json".to_owned()));
}

#[test]
fn where_rows_stay_what_was_added_stays_and_what_was_rewritten_does_not() {
    let mount = Mount::new();
    let kept = mount.keep();
    fs::write(mount.at("invoice.pdf"), "new").unwrap();
    fs::write(mount.at("growing"), "one\ntwo\n").unwrap();
    fs::write(mount.at("keys/store.json"), "vX and more").unwrap();
    let done = mount.put_back(&kept, Way::KeepAdditions);
    assert_eq!(done.left, ["/root/payram/growing", "/root/payram/invoice.pdf"]);
    assert_eq!(done.contents, ["/root/payram/keys/store.json"]);
    assert_eq!(mount.read("invoice.pdf"), "new");
    assert_eq!(mount.read("growing"), "one\ntwo\n");
    assert_eq!(mount.read("keys/store.json"), "v1");
}

#[test]
fn a_second_pass_copies_what_differs_and_an_equal_size_and_time_hide_nothing() {
    let mount = Mount::new();
    let first = keep(&mount.companion, &mount.copy, true, &Cancel::default()).unwrap().unwrap();
    let meta = fs::metadata(mount.at("keys/store.json")).unwrap();
    fs::write(mount.at("keys/store.json"), "v2").unwrap();
    let file = File::options().write(true).open(mount.at("keys/store.json")).unwrap();
    file.set_modified(meta.modified().unwrap()).unwrap();
    let second = mount.keep();
    assert_ne!(first.sha256, second.sha256);
    fs::write(mount.at("keys/store.json"), "v3").unwrap();
    mount.put_back(&second, Way::Exact);
    assert_eq!(mount.read("keys/store.json"), "v2");
}

#[test]
fn a_copy_that_is_not_the_one_that_was_made_puts_nothing_back() {
    let mount = Mount::new();
    let kept = mount.keep();
    fs::write(mount.at("keys/store.json"), "v2").unwrap();
    let refused = put_back(&mount.companion, &mount.copy, "00", &mount.aside, Way::KeepAdditions);
    assert!(matches!(refused, Err(RestorePointError::Damaged { .. })), "{refused:?}");
    assert_eq!(mount.read("keys/store.json"), "v2");
    // One file of it is damaged: the others come back, and it is told.
    let stored = hex(&Sha256::digest("v1"));
    fs::write(mount.copy.join(stored), "v!").unwrap();
    fs::remove_file(mount.at("keys/old/a")).unwrap();
    let done = mount.put_back(&kept, Way::KeepAdditions);
    assert_eq!(done.failed.len(), 1, "{done:?}");
    assert!(done.failed[0].contains("store.json"), "{done:?}");
    assert_eq!(
        (mount.read("keys/store.json"), mount.read("keys/old/a")),
        ("v2".into(), "a".into())
    );
}

#[test]
fn one_file_that_is_mounted_is_a_mount_of_its_own() {
    let mount = Mount::new();
    let companion = Companion {
        source: mount.at("keys/store.json"),
        destination: "/etc/store.json".into(),
        apart: Vec::new(),
        apart_prefix: None,
        is_scratch: |_| false,
    };
    let kept = keep(&companion, &mount.copy, false, &Cancel::default()).unwrap().unwrap();
    assert_eq!(kept.files, 1);
    fs::write(mount.at("keys/store.json"), "v2").unwrap();
    fs::write(mount.at("keys/other"), "untouched").unwrap();
    let done = put_back(&companion, &mount.copy, &kept.sha256, &mount.aside, Way::Exact).unwrap();
    assert_eq!(done.contents, ["/etc/store.json"]);
    assert_eq!(
        (mount.read("keys/store.json"), mount.read("keys/other")),
        ("v1".into(), "untouched".into())
    );
}

#[test]
fn what_is_the_hosts_own_or_too_much_is_left_out() {
    let companion = |source: &str| Companion {
        source: source.into(),
        destination: "/host".into(),
        apart: Vec::new(),
        apart_prefix: None,
        is_scratch: |_| false,
    };
    for own in ["/", "/etc", "/usr/share", "/proc", "/var/lib", "/dev/null", "/nowhere"] {
        let size = size_of(&companion(own)).unwrap();
        assert!(matches!(size, Size::LeftOut { .. }), "{own}: {size:?}");
    }
}

#[test]
fn of_a_mount_that_is_too_large_the_small_files_are_copied_and_the_others_are_told() {
    let mount = Mount::new();
    let all = Size::Small { files: 4, bytes: 2 + 1 + 4 + 10, left: 0 };
    assert_eq!(size_of(&mount.companion).unwrap(), all);
    let big = File::create(mount.at("big")).unwrap();
    big.set_len(MOST_BYTES).unwrap();
    let most = Size::Small { files: 4, bytes: 2 + 1 + 4 + 10, left: 1 };
    assert_eq!(size_of(&mount.companion).unwrap(), most);
    let kept = mount.keep();
    fs::write(mount.at("keys/store.json"), "v2").unwrap();
    big.set_len(MOST_BYTES + 1).unwrap();
    let done = mount.put_back(&kept, Way::Exact);
    assert_eq!(done.contents, ["/root/payram/keys/store.json"]);
    assert_eq!(done.left, ["/root/payram/big"], "in no copy, and not taken for new");
    assert_eq!(mount.read("keys/store.json"), "v1");
}

#[test]
fn what_is_too_large_to_be_kept_aside_is_left_and_told() {
    let mount = Mount::new();
    let kept = mount.keep();
    let added = File::create(mount.at("added")).unwrap();
    added.set_len(MOST_ASIDE + 1).unwrap();
    fs::write(mount.at("keys/store.json"), "v2").unwrap();
    let done = mount.put_back(&kept, Way::Exact);
    assert_eq!(done.failed.len(), 1, "{done:?}");
    assert!(done.failed[0].contains("more than there is room for"), "{done:?}");
    assert!(mount.at("added").exists(), "nothing is removed that is not kept");
    assert_eq!(mount.read("keys/store.json"), "v1", "the others come back all the same");
}

#[test]
fn what_is_only_told_is_not_touched() {
    let mount = Mount::new();
    let kept = mount.keep();
    fs::write(mount.at("keys/store.json"), "version two").unwrap();
    fs::remove_file(mount.at("keys/old/a")).unwrap();
    fs::write(mount.at("new"), "new").unwrap();
    let done = mount.put_back(&kept, Way::Tell);
    let left = ["/root/payram/keys/old/a", "/root/payram/keys/store.json", "/root/payram/new"];
    let mut told = done.left.clone();
    told.sort();
    assert_eq!(told, left);
    assert_eq!(mount.read("keys/store.json"), "version two");
    assert_eq!(done, PutBack { left: done.left.clone(), ..PutBack::default() });
    assert!(!mount.aside.exists());
}
