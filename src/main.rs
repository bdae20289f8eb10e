//! The `treering` command: parses nothing and decides nothing here; see the `cli` module of the library.

fn main() -> std::process::ExitCode {
    treering::cli::run()
}
