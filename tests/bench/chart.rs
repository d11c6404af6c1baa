//! Bars on a logarithmic scale, as SVG.

use std::fmt::Write;

/// Pixels: of a bar, and of the names to the left of them.
const HEIGHT: usize = 16;
const LEFT: f64 = 330.0;
const WIDTH: f64 = 460.0;
const COLOURS: [&str; 2] = ["#4477aa", "#ee7733"];

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A group of up to two bars for each row; `series` says what they are.
pub fn bars(title: &str, series: [&str; 2], rows: &[(String, [Option<f64>; 2])]) -> String {
    let values = || rows.iter().flat_map(|row| row.1).flatten();
    let low = values().fold(f64::MAX, f64::min).log10().floor();
    let high = values().fold(f64::MIN, f64::max).log10().ceil();
    let x = |value: f64| LEFT + WIDTH * (value.log10() - low) / (high - low).max(1.0);
    let group = 2 * HEIGHT + 10;
    let (top, bottom) = (60, 60 + rows.len() * group);
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='900' height='{}' font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='white'/>\n<text x='10' y='20' font-size='15'>{}</text>\n",
        bottom + 30,
        escaped(title)
    );
    for (index, what) in series.into_iter().enumerate() {
        let at = 10 + index * 160;
        let _ = writeln!(
            svg,
            "<rect x='{at}' y='32' width='12' height='12' fill='{}'/><text x='{}' y='42'>{}</text>",
            COLOURS[index],
            at + 18,
            escaped(what)
        );
    }
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
