//! Pictures as SVG: curves over time, and the mesh itself.

use std::fmt::Write;

/// Width of a picture.
const WIDTH: f64 = 960.0;

/// Height of one chart.
const HEIGHT: f64 = 240.0;

/// Around a chart: room for its labels.
const MARGIN: f64 = 56.0;

/// Colours of curves, told apart also by those who see no red or green.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// A curve.
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// In order of the first.
    pub points: Vec<(f64, f64)>,
}

/// Curves with axes in common.
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Of the axis to the right.
    pub across: &'static str,
    /// All curves.
    pub curves: Vec<Curve>,
    /// Moments with what happened then.
    pub marks: Vec<(f64, String)>,
}

impl Chart {
    fn most(&self, of: impl Fn(&(f64, f64)) -> f64) -> f64 {
        self.curves.iter().flat_map(|curve| &curve.points).map(of).fold(f64::MIN_POSITIVE, f64::max)
    }

    fn draw(&self, svg: &mut String, top: f64) {
        let (widest, highest) = (self.most(|point| point.0), self.most(|point| point.1));
        let x = |value: f64| MARGIN + value / widest * (WIDTH - 2.0 * MARGIN);
        let y = |value: f64| top + HEIGHT - MARGIN - value / highest * (HEIGHT - 2.0 * MARGIN);
        let (left, right, low, high) = (x(0.0), x(widest), y(0.0), y(highest));
        text(svg, left, top + 24.0, "start", &self.title);
        line(svg, (left, low), (right, low), "#444");
        line(svg, (left, low), (left, high), "#444");
        for part in 0..=4 {
            let share = f64::from(part) / 4.0;
            text(svg, left - 6.0, y(highest * share) + 4.0, "end", &number(highest * share));
            text(svg, x(widest * share), low + 18.0, "middle", &number(widest * share));
        }
        text(svg, right, low + 34.0, "end", self.across);
        for (at, what) in &self.marks {
            line(svg, (x(*at), low), (x(*at), high), "#bbb");
            text(svg, x(*at) + 3.0, high + 10.0, "start", what);
        }
        for (place, (curve, colour)) in self.curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let points: Vec<String> =
                curve.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
            let _ = writeln!(svg, r#"<polyline fill="none" stroke="{colour}" points="{}"/>"#, points.join(" "));
            let at = right - 150.0 * (self.curves.len() - place) as f64;
            line(svg, (at, top + 20.0), (at + 18.0, top + 20.0), colour);
            text(svg, at + 22.0, top + 24.0, "start", &curve.name);
        }
    }
}

/// Charts, one below the other.
#[must_use]
pub fn charts(charts: &[Chart]) -> String {
    let mut svg = opening(HEIGHT * charts.len() as f64);
    for (place, chart) in charts.iter().enumerate() {
        chart.draw(&mut svg, HEIGHT * place as f64);
    }
    svg + "</svg>\n"
}

/// Nodes on a circle and the links between them; those that do not run are grey.
#[must_use]
pub fn mesh(count: usize, links: impl Iterator<Item = (usize, usize)>, runs: impl Fn(usize) -> bool) -> String {
    let place = |node: usize| {
        let angle = node as f64 / count.max(1) as f64 * std::f64::consts::TAU;
        (WIDTH / 2.0 + angle.cos() * (WIDTH / 2.0 - MARGIN), WIDTH / 2.0 + angle.sin() * (WIDTH / 2.0 - MARGIN))
    };
    let mut svg = opening(WIDTH);
    for (one, other) in links.filter(|(one, other)| one < other) {
        line(&mut svg, place(one), place(other), if runs(one) && runs(other) { "#0072b240" } else { "#bbbbbb40" });
    }
    for node in 0..count {
        let ((x, y), colour) = (place(node), if runs(node) { "#0072b2" } else { "#bbbbbb" });
        let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#);
    }
    svg + "</svg>\n"
}

fn opening(height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    )
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x, y), (u, v)) = (from, to);
    let _ = writeln!(svg, r#"<line x1="{x:.1}" y1="{y:.1}" x2="{u:.1}" y2="{v:.1}" stroke="{colour}"/>"#);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{words}</text>"#);
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_curves_and_marks_inside_the_picture() {
        let curve = Curve { name: "known".to_owned(), points: vec![(0.0, 0.0), (10.0, 5.0)] };
        let marks = vec![(5.0, "heal".to_owned())];
        let svg = charts(&[Chart { title: "t".to_owned(), across: "s", curves: vec![curve], marks }]);
        assert!(svg.contains(r#"points="56.0,184.0 904.0,56.0""#) && svg.contains("heal") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_mesh_has_a_line_for_each_link_and_a_dot_for_each_node() {
        let svg = mesh(3, [(0, 1), (1, 0), (1, 2)].into_iter(), |node| node < 2);
        assert_eq!((svg.matches("<line").count(), svg.matches("<circle").count()), (2, 3));
    }
}
