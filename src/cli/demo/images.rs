//! Where the stand-in's images are: in a registry on this host, which a script of the checkout
//! (tests/fixtures/payram-image) made.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::timeout;

use super::Fault;

/// In a checkout: says where the images are, and starts their registry when it does not run.
const PREPARE: &str = "tests/fixtures/payram-image/prepare";

/// In a checkout: installs and makes what is missing.
const MAKE: &str = "tests/run --only-prepare";

/// It takes half a second; another run that makes the images holds it up.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

/// The repository of the images; builds nothing.
pub(super) async fn repository() -> Result<String, Fault> {
    let here = std::env::current_dir()?;
    let checkout = checkout_of(&here)?;
    let prepare = checkout.join(PREPARE);
    trusted(&prepare)?;
    let lacks = |why: &str| {
        Fault::new(format!(
            "the images that stand in for PayRam's can't be used: {why}. This makes them, and \
             installs what that needs (some minutes, as root):\n  {}/{MAKE}",
            checkout.display()
        ))
    };
    let child = Command::new(&prepare)
        .arg("--if-built")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let _group = child.id().map(Group);
    let ran = timeout(FOUND_WITHIN, child.wait_with_output()).await;
    let ran = ran.map_err(|_| lacks("another run of `prepare` is making them"))??;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(lacks(said.lines().last().unwrap_or("no reason was given")));
    }
    let said = String::from_utf8_lossy(&ran.stdout);
    let repo = said.lines().find_map(|line| line.strip_prefix("PAYRAM_FIXTURE_REPO="));
    repo.map(str::to_owned).ok_or_else(|| lacks("`prepare` did not say where they are"))
}

/// The checkout that a directory is in.
fn checkout_of(here: &Path) -> Result<PathBuf, Fault> {
    let found = here.ancestors().find(|directory| directory.join(PREPARE).is_file());
    found.map(Path::to_path_buf).ok_or_else(|| {
        Fault::new(format!(
            "--engine docker needs images that stand in for PayRam's, which a clone of \
             payram-updater makes, and {} is in none (no {PREPARE}). In a clone, as root:\n  \
             {MAKE}\n  cargo run --release -- demo --engine docker",
            here.display()
        ))
    })
}

/// Only what root or the owner of this very program wrote is run as root.
fn trusted(script: &Path) -> Result<(), Fault> {
    let owner = fs::metadata(std::env::current_exe()?)?.uid();
    let script_is = fs::metadata(script)?;
    if ![0, owner].contains(&script_is.uid()) || script_is.mode() & 0o002 != 0 {
        return Err(Fault::new(format!(
            "{} is not run as root: it belongs to neither root nor the owner of this program, \
             or everybody may write to it",
            script.display()
        )));
    }
    Ok(())
}

/// A process group that ends with this: the script and what it waits for.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0).ok().and_then(Pid::from_raw) {
            // It has ended as a rule.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_checkout_is_found_from_below_and_elsewhere_the_commands_are_named() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(checkout_of(&root.join("src/cli")).expect("a checkout"), root);
        let elsewhere = tempfile::tempdir().expect("a directory");
        let error = checkout_of(elsewhere.path()).expect_err("none").to_string();
        assert!(error.contains(MAKE) && error.contains("demo --engine docker"), "{error}");
    }

    #[test]
    fn a_script_that_everybody_may_write_to_is_not_run() {
        let script = tempfile::NamedTempFile::new().expect("a file");
        trusted(script.path()).expect("it is ours alone");
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(script.path(), everybody).expect("its mode");
        assert!(trusted(script.path()).is_err());
    }
}
