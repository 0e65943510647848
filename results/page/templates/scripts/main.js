// Puts the parts of the page to work. Without this code the page still has all tables and figures.

document.querySelectorAll("table.sortable").forEach(makeSortable);
keepUpToDate();
const choose = byId("choose-part");
if (choose) {
  choose.hidden = false;
  buildRequirements();
  buildRecommendation();
  buildTable();
  buildFronts();
  buildParallel();
  onChange(showCount);
  onChange(showTable);
  onChange(showFronts);
  onChange(showParallel);
  onChange(showRecommendation);
  changed();
}
