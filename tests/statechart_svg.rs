//! The picture in the repository is the one that the code draws.

use std::path::Path;
use std::process::Command;

#[test]
fn the_picture_of_the_machine_is_drawn_from_the_machine_as_it_is() {
    let drawn = Command::new(env!("CARGO_BIN_EXE_payram-updater"))
        .arg("statechart")
        .output()
        .expect("the program runs");
    assert!(drawn.status.success(), "{drawn:?}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("statecharts/upgrade.svg");
    let kept = std::fs::read(&file).unwrap_or_default();
    assert!(
        kept == drawn.stdout,
        "{} is stale; draw it again: cargo run -q -- statechart > statecharts/upgrade.svg",
        file.display()
    );
}
