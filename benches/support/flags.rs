//! `--name value` and `--switch`, and nothing more.

use std::str::FromStr;

/// The command line of a harness.
pub(crate) struct Flags {
    values: Vec<(String, String)>,
    switches: Vec<String>,
}

impl Flags {
    /// Reads the command line; ends the process with status 2 and `usage` if it holds anything
    /// else.
    pub(crate) fn read(names: &[&str], switches: &[&str], usage: &str) -> Self {
        let mut flags = Flags { values: Vec::new(), switches: Vec::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").unwrap_or_default();
            if switches.contains(&name) {
                flags.switches.push(name.to_string());
            } else if let (true, Some(value)) = (names.contains(&name), words.next()) {
                flags.values.push((name.to_string(), value));
            } else {
                fail(&format!("{word}: not understood\n{usage}"));
            }
        }
        flags
    }

    /// True if the switch was given.
    pub(crate) fn has(&self, switch: &str) -> bool {
        self.switches.iter().any(|given| given == switch)
    }

    /// The value last given under `name`.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let mut given = self.values.iter().rev();
        Some(given.find(|(given, _)| given == name)?.1.as_str())
    }

    /// [`Flags::text`] as a number, or `default`.
    pub(crate) fn number<T: FromStr>(&self, name: &str, default: T) -> T {
        match self.text(name).map(str::parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => fail(&format!("--{name}: not a number in range")),
        }
    }

    /// The parts of a comma-separated value, or of `default`.
    pub(crate) fn list(&self, name: &str, default: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or(default);
        text.split(',').map(str::to_string).collect()
    }
}

/// Ends the process with a message and status 2.
pub(crate) fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2);
}
