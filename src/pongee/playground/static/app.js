// The playground: tabs, and the parts behind them.

import { startChannels } from "./channels.js";
import { startChat } from "./chat.js";
import { startConsole } from "./console.js";
import { byId } from "./dom.js";
import { fetchConfig } from "./tokens.js";

function startTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];

  function select(tab, focus) {
    for (const other of tabs) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
      byId(other.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
  }

  // Not an element's id: the browser would move its focus there.
  const address = (tab) => `#/${tab.getAttribute("aria-controls")}`;
  const named = () => tabs.find((tab) => address(tab) === location.hash) ?? tabs[0];
  const choose = (tab, focus) => {
    select(tab, focus);
    history.replaceState(null, "", address(tab));
  };

  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => choose(tab, false));
    tab.addEventListener("keydown", (event) => {
      const target = {
        ArrowRight: tabs[(index + 1) % tabs.length],
        ArrowLeft: tabs[(index + tabs.length - 1) % tabs.length],
        Home: tabs[0],
        End: tabs.at(-1),
      }[event.key];
      if (!target) return;
      event.preventDefault();
      choose(target, true);
    });
  });
  window.addEventListener("hashchange", () => select(named(), false));
  select(named(), false);
}

startTabs();
startChat();
const config = fetchConfig();
startConsole(config);
startChannels(config);
document.documentElement.dataset.ready = "true";
