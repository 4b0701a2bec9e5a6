// A log that keeps its last entries, draws in batches and follows the end unless you scrolled up.

const KEPT = 500;
const BATCH_MS = 16;

export class BoundedLog {
  #box;
  #list;
  #note;
  #render;
  #waiting = [];
  #dropped = 0;
  #timer = null;
  #following = true;

  /**
   * @param box the scrolling element; holds an <ol> and an .empty note
   * @param note where the number of dropped entries is said
   * @param render entry -> <li>
   */
  constructor(box, note, render) {
    this.#box = box;
    this.#list = box.querySelector("ol");
    this.#note = note;
    this.#render = render;
    let top = 0;
    box.addEventListener("scroll", () => {
      if (box.scrollHeight - box.scrollTop - box.clientHeight < 48) this.#following = true;
      else if (box.scrollTop < top) this.#following = false; // only the reader scrolls up
      top = box.scrollTop;
    });
    new ResizeObserver(() => this.#follow()).observe(box);
  }

  add(entry) {
    this.#waiting.push(entry);
    if (this.#waiting.length > KEPT) {
      this.#waiting.shift();
      this.#dropped += 1;
    }
    this.#timer ??= setTimeout(() => this.#flush(), BATCH_MS);
  }

  clear() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#waiting = [];
    this.#dropped = 0;
    this.#following = true;
    this.#list.replaceChildren();
    this.#mark();
  }

  #flush() {
    this.#timer = null;
    this.#list.append(...this.#waiting.map(this.#render));
    this.#waiting = [];
    while (this.#list.childElementCount > KEPT) {
      this.#list.firstElementChild.remove();
      this.#dropped += 1;
    }
    this.#mark();
    this.#follow();
  }

  #follow() {
    if (this.#following) this.#box.scrollTop = this.#box.scrollHeight;
  }

  #mark() {
    this.#box.querySelector(".empty").hidden = this.#list.childElementCount > 0;
    this.#note.hidden = this.#dropped === 0;
    const kept = `The last ${KEPT} entries are kept`;
    this.#note.textContent = this.#dropped
      ? `${kept}; ${this.#dropped.toLocaleString("en")} earlier dropped.`
      : "";
  }
}
