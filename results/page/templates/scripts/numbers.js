// Numbers as results/records/values.py writes them.

function numberText(number) {
  const size = Math.abs(number);
  if (number === 0 || (size >= 0.001 && size < 100)) return number.toFixed(3);
  return String(Number(number.toPrecision(size < 1 ? 2 : 4)));
}

function intervalText([, low, high]) {
  return `[${numberText(low)}, ${numberText(high)}]`;
}

function figureText(figure) {
  return figure ? `${numberText(figure[0])} ${intervalText(figure)}` : "not measured";
}

function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
