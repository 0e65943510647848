// Makes elements. Text is only ever set as text: nothing of the data can become markup.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child != null));
  return made;
}

function byId(id) {
  return document.getElementById(id);
}

// Lets a long name break after an underscore or a bracket, as the page's own rows do.
function breakable(label) {
  return label.split(/(?<=[_(])/).flatMap((part, place) => (place ? [element("wbr"), part] : [part]));
}
