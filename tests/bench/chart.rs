//! Charts as SVG: bars on a logarithmic scale, and curves.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Pixels: of a bar, and of the names to the left of them.
const HEIGHT: usize = 16;
const LEFT: f64 = 330.0;
const WIDTH: f64 = 460.0;
const COLOURS: [&str; 3] = ["#4477aa", "#ee7733", "#228833"];

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn begin(height: usize, title: &str, series: &[&str]) -> String {
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='900' height='{height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='white'/>\n<text x='10' y='20' font-size='15'>{}</text>\n",
        escaped(title)
    );
    for (index, what) in series.iter().enumerate() {
        let at = 10 + index * 160;
        let _ = writeln!(
            svg,
            "<rect x='{at}' y='32' width='12' height='12' fill='{}'/><text x='{}' y='42'>{}</text>",
            COLOURS[index],
            at + 18,
            escaped(what)
        );
    }
    svg
}

/// Writes a chart below `target/bench`, and says where.
pub fn write(name: &str, svg: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, svg).unwrap();
    path
}

/// Up to three curves over a logarithmic axis; the other one begins at 0, and has a line at
/// `limit`.
pub fn curves<const N: usize>(
    title: &str,
    series: [&str; N],
    limit: f64,
    points: &[(f64, [f64; N])],
) -> String {
    let (top, bottom, left, right) = (60.0, 360.0, 60.0, 860.0);
    let values = points.iter().flat_map(|point| point.1);
    let high = values.fold(limit, f64::max) * 1.1;
    let [first, last] =
        [points.first(), points.last()].map(|point| point.map_or(1.0, |point| point.0.log10()));
    let x = |value: f64| left + (right - left) * (value.log10() - first) / (last - first).max(1.0);
    let y = |value: f64| bottom - (bottom - top) * value / high;
    let mut svg = begin(400, title, &series);
    for (value, colour) in [(0.0, "#888"), (0.5, "#ddd"), (1.0, "#ddd"), (limit, "#c33")] {
        let _ = writeln!(
            svg,
            "<line x1='{left}' x2='{right}' y1='{0:.1}' y2='{0:.1}' stroke='{colour}'/>\
             <text x='{1:.1}' y='{2:.1}' text-anchor='end'>{value}</text>",
            y(value),
            left - 6.0,
            y(value) + 4.0
        );
    }
    for (at, _) in points {
        let _ = writeln!(
            svg,
            "<text x='{:.1}' y='{}' text-anchor='middle'>{at}</text>",
            x(*at),
            bottom + 18.0
        );
    }
    for (index, colour) in COLOURS.into_iter().take(N).enumerate() {
        let mut line = String::new();
        for (at, values) in points {
            let (x, y) = (x(*at), y(values[index]));
            let _ = write!(line, "{x:.1},{y:.1} ");
            let _ = writeln!(
                svg,
                "<circle cx='{x:.1}' cy='{y:.1}' r='3' fill='{colour}'/>"
            );
        }
        let _ = writeln!(
            svg,
            "<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'/>"
        );
    }
    svg + "</svg>\n"
}

/// A group of up to two bars for each row; `series` says what they are.
pub fn bars(title: &str, series: [&str; 2], rows: &[(String, [Option<f64>; 2])]) -> String {
    let values = || rows.iter().flat_map(|row| row.1).flatten();
    let low = values().fold(f64::MAX, f64::min).log10().floor();
    let high = values().fold(f64::MIN, f64::max).log10().ceil();
    let x = |value: f64| LEFT + WIDTH * (value.log10() - low) / (high - low).max(1.0);
    let group = 2 * HEIGHT + 10;
    let (top, bottom) = (60, 60 + rows.len() * group);
    let mut svg = begin(bottom + 30, title, &series);
    let mut decade = low;
    while decade <= high {
        let value = 10f64.powf(decade);
        let _ = writeln!(
            svg,
            "<line x1='{0:.1}' x2='{0:.1}' y1='{top}' y2='{bottom}' stroke='#ddd'/>\
             <text x='{0:.1}' y='{1}' text-anchor='middle'>{value}</text>",
            x(value),
            bottom + 16
        );
        decade += 1.0;
    }
    for (row, (name, values)) in rows.iter().enumerate() {
        let y = top + row * group;
        let _ = writeln!(
            svg,
            "<text x='{}' y='{}' text-anchor='end'>{}</text>",
            LEFT - 8.0,
            y + HEIGHT + 4,
            escaped(name)
        );
        for (index, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let y = y + index * HEIGHT;
            let _ = writeln!(
                svg,
                "<rect x='{LEFT}' y='{y}' width='{:.1}' height='{}' fill='{}'/><text x='{:.1}' y='{}'>{value:.1}</text>",
                x(*value) - LEFT,
                HEIGHT - 2,
                COLOURS[index],
                x(*value) + 4.0,
                y + HEIGHT - 4
            );
        }
    }
    svg + "</svg>\n"
}
