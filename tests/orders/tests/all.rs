//! Runs the checkers. They are programs, because in a test the modules that they include would
//! bring their own unit tests, which need the whole library.

use std::process::Command;

fn run(program: &str) {
    let output = Command::new(program).output().unwrap();
    let [out, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{program}: {}\n{out}\n{errors}", output.status);
}

#[test]
fn the_fault_table_in_every_order() {
    run(env!("CARGO_BIN_EXE_fault_table"));
}

#[test]
fn pins_in_many_orders() {
    run(env!("CARGO_BIN_EXE_pins"));
}

#[test]
fn planted_mistakes_are_caught() {
    for bug in ["OwnPinsOnly", "LookForPinsOnly", "UnpinAtFirstDrop"] {
        let output = Command::new(env!("CARGO_BIN_EXE_pins")).arg(bug).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("is gone"), "{bug}: {errors}");
    }
}

#[test]
fn what_threads_share_in_many_orders() {
    run(env!("CARGO_BIN_EXE_shared"));
}
