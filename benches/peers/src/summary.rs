//! The ratios that the project holds itself to, and whether this run reached them.

use serde_json::{Map, Value, json};

use crate::machine::round_seconds;
use crate::measure::Measured;
use crate::support::median;

/// What must be reached, and what is aimed at.
struct Goal {
    must: f64,
    aim: f64,
}

const fn goal(must: f64, aim: f64) -> Option<Goal> {
    Some(Goal { must, aim })
}

/// The goals of one workload. Rates are on one thread, builds on two.
#[derive(Default)]
struct Goals {
    /// At most so many seconds.
    build_seconds: Option<Goal>,
    /// At most so many times kiddo's build.
    build_over_kiddo: Option<Goal>,
    /// At least so many cores busy.
    build_cpu: Option<Goal>,
    /// At least so many times the queries per second.
    queries_over_kiddo: Option<Goal>,
    queries_over_scan: Option<Goal>,
}

fn goals(workload: &str) -> Goals {
    let million = |build_over_kiddo, queries_over_kiddo, queries_over_scan| Goals {
        build_over_kiddo,
        build_cpu: goal(1.7, 1.7),
        queries_over_kiddo,
        queries_over_scan,
        ..Goals::default()
    };
    let real = |seconds| Goals {
        build_seconds: goal(seconds, seconds),
        queries_over_scan: goal(0.9, 1.5),
        ..Goals::default()
    };
    match workload {
        "W1" => Goals {
            build_seconds: goal(0.1, 0.1),
            queries_over_kiddo: goal(0.8, 1.2),
            ..Goals::default()
        },
        "W2" => million(goal(5.0, 2.0), goal(0.5, 1.0), None),
        "W3" => million(goal(8.0, 3.0), goal(2.0, 4.0), None),
        "W4" => million(goal(8.0, 3.0), goal(60.0, 150.0), goal(12.0, 30.0)),
        "fashion_mnist10k_784d_u8" => real(3.0),
        "sift_bigann10k_128d" => real(1.0),
        _ => Goals::default(),
    }
}

/// All that a summary is made of.
pub(crate) struct Outcome<'a> {
    pub(crate) name: &'a str,
    pub(crate) systems: &'a [Measured],
    /// Queries compared with treering's own scan, and how many differed.
    pub(crate) exact: (u64, u64),
}

impl Outcome<'_> {
    fn system(&self, name: &str) -> Option<&Measured> {
        self.systems.iter().find(|measured| measured.name() == name)
    }

    /// Median over builds of one system's seconds by another's.
    fn builds(&self, one: &str, other: &str) -> Option<f64> {
        let (one, other) = (&self.system(one)?.builds, &self.system(other)?.builds);
        let ratio = one.iter().zip(other).map(|(one, other)| one.seconds / other.seconds);
        Some(median(ratio.collect()))
    }

    /// Median over rounds of one system's queries per second by another's.
    fn rates(&self, one: &str, other: &str, threads: usize) -> Option<f64> {
        let rates = |name| Some(&self.system(name)?.rates[threads - 1]);
        let ratio = rates(one)?.iter().zip(rates(other)?).map(|(one, other)| one / other);
        Some(median(ratio.collect()))
    }

    /// One system's queries per second by another's, one query at a time.
    fn singles(&self, one: &str, other: &str) -> Option<f64> {
        Some(self.system(other)?.single(50) / self.system(one)?.single(50))
    }
}

/// The summary of a workload.
pub(crate) fn line(outcome: &Outcome<'_>) -> Value {
    let goals = goals(outcome.name);
    let mut line = Map::new();
    let mut missed = Vec::new();
    line.insert("kind".into(), json!("summary"));
    line.insert("workload".into(), json!(outcome.name));
    let mut add = |name: &str, value: Option<f64>, goal: Option<Goal>, most: bool| {
        line.insert(name.into(), json!(value.map(round_seconds)));
        if let Some(Goal { must, aim }) = goal {
            let reached = value.is_some_and(|v| if most { v <= must } else { v >= must });
            line.insert(format!("{name}_must"), json!(must));
            line.insert(format!("{name}_aim"), json!(aim));
            if !reached {
                missed.push(name.to_string());
            }
        }
    };
    let tree = outcome.system("treering");
    let (own, kiddo, scan) = ("treering", "kiddo", "scan");
    add("build_s", tree.map(Measured::build_seconds), goals.build_seconds, true);
    add("build_over_kiddo", outcome.builds(own, kiddo), goals.build_over_kiddo, true);
    add("build_cpu_utilisation", tree.map(Measured::build_cpu), goals.build_cpu, false);
    add("queries_over_kiddo", outcome.rates(own, kiddo, 1), goals.queries_over_kiddo, false);
    add("queries_over_scan", outcome.rates(own, scan, 1), goals.queries_over_scan, false);
    add("queries_over_kiddo_2_threads", outcome.rates(own, kiddo, 2), None, false);
    add("queries_over_scan_2_threads", outcome.rates(own, scan, 2), None, false);
    add("single_over_kiddo", outcome.singles(own, kiddo), None, false);
    add("single_over_scan", outcome.singles(own, scan), None, false);
    add("treering_scan_over_scan", outcome.rates("treering_scan", scan, 1), None, false);
    let mismatches: usize = outcome.systems.iter().map(|measured| measured.mismatches).sum();
    line.insert("mismatches".into(), json!(mismatches as u64 + outcome.exact.1));
    line.insert("exactness_queries".into(), json!(outcome.exact.0));
    line.insert("missed".into(), json!(missed));
    Value::Object(line)
}
