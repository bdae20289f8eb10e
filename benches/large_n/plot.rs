//! The figures as a plot, and how they grow.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::Row;

/// A figure of a row, by number of points.
struct Figure {
    name: &'static str,
    of: fn(&Row) -> Option<f64>,
}

const FIGURES: [Figure; 6] = [
    Figure {
        name: "build: processor seconds per million points",
        of: |r| Some(r.build.cpu_seconds / r.points as f64 * 1e6),
    },
    Figure {
        name: "build: evaluations per point",
        of: |r| Some(r.build.evaluations / r.points as f64),
    },
    Figure {
        name: "build: MiB of anonymous memory",
        of: |r| Some(r.build.anonymous_bytes / 1048576.0),
    },
    Figure { name: "query: evaluations", of: |r| Some(r.warm.evaluations) },
    Figure { name: "query: microseconds, warm, p50", of: |r| Some(r.warm.p50_us) },
    Figure {
        name: "query: microseconds, in little memory, p50",
        of: |r| Some(r.cold.as_ref()?.p50_us),
    },
];

/// Points of one line: the same data, with or without a limit.
fn lines(rows: &[Row], figure: &Figure) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for row in rows {
        let Some(value) = (figure.of)(row) else { continue };
        let limited = if row.limit_mib.is_some() { ", limited" } else { "" };
        let name = format!("{}{limited}", row.data);
        let point = (row.points as f64, value);
        match lines.iter_mut().find(|line| line.0 == name) {
            Some(line) => line.1.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    lines
}

/// Draws every figure, both axes logarithmic.
pub(crate) fn plot(path: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (1200, 1050)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, figure) in root.split_evenly((3, 2)).iter().zip(&FIGURES) {
        let lines = lines(rows, figure);
        let all = || lines.iter().flat_map(|line| &line.1);
        let bounds = |of: fn(&(f64, f64)) -> f64| {
            let values = all().map(of);
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
            (low * 0.7).max(1e-9)..(high * 1.4).max(1e-8)
        };
        if all().next().is_none() {
            continue;
        }
        let mut chart = ChartBuilder::on(area)
            .caption(figure.name, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(56)
            .build_cartesian_2d(bounds(|p| p.0).log_scale(), bounds(|p| p.1).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("points")
            .x_labels(4)
            .y_labels(5)
            .max_light_lines(0)
            .bold_line_style(BLACK.mix(0.1))
            .draw()?;
        for (i, (name, points)) in lines.iter().enumerate() {
            let color = Palette99::pick(i).to_rgba();
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
            chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    root.present()?;
    Ok(())
}

/// The exponent with which each figure grows: the slope of the least-squares line through the
/// logarithms.
pub(crate) fn fits(rows: &[Row]) -> Vec<String> {
    let mut fits = Vec::new();
    for figure in &FIGURES {
        for (name, points) in lines(rows, figure).iter().filter(|line| line.1.len() > 1) {
            let logs: Vec<(f64, f64)> = points.iter().map(|p| (p.0.ln(), p.1.ln())).collect();
            let n = logs.len() as f64;
            let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / n;
            let (x, y) = (mean(|p| p.0), mean(|p| p.1));
            let covariance: f64 = logs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
            let variance: f64 = logs.iter().map(|p| (p.0 - x).powi(2)).sum();
            fits.push(format!("{}: {name}: n^{:.3}", figure.name, covariance / variance));
        }
    }
    fits
}
