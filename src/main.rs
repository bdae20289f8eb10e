//! The `treering` command: parses nothing and decides nothing here; see the `cli` module of the library.

#[cfg(unix)]
mod out_of_memory;

fn main() -> std::process::ExitCode {
    #[cfg(unix)]
    out_of_memory::prepare();
    treering::cli::run()
}
