//! Points as CSV: `id,x0,x1,...`, each coordinate with as many digits as bring the same f32 back.

use std::fmt::Write as _;

use treering::PointId;

/// Lines of CSV that are being gathered.
#[derive(Default)]
pub(crate) struct PointRows(String);

impl PointRows {
    /// The header line.
    pub(crate) fn header(dim: usize) -> String {
        let columns: String = (0..dim).map(|column| format!(",x{column}")).collect();
        format!("id{columns}\n")
    }

    /// Appends a line.
    pub(crate) fn push(&mut self, id: PointId, point: &[f32]) {
        let text = &mut self.0;
        write!(text, "{id}").expect("a String takes anything");
        for value in point {
            write!(text, ",{value}").expect("a String takes anything");
        }
        text.push('\n');
    }

    /// What has been gathered.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Forgets what has been gathered.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
