// @ts-check
/**
 * The interactive timeline of a report: canvas lanes over packed columns, without any dependency or request.
 *
 * The page carries what `nitro.reports.timeline_data.packed` made; its format is described there. All words come from
 * `labels`, all colours of kinds and causes from the packed data, all other colours from CSS variables.
 *
 * Level of detail: the items of a row do not overlap and are sorted, so that prefix sums of their lengths give the
 * exact covered time between any two moments by binary search. Items narrower than a pixel and a half become columns
 * whose height is the share of that pixel that they cover. A frame costs O(pixels x log items), whatever the capture.
 */
/** @type {any} */ (globalThis).NitroTimeline ??= (() => {
  'use strict';

  /**
   * @typedef {{starts: Float64Array, ends: Float64Array, index: Uint32Array|null, prefix: Float64Array|null,
   *   copies: Float64Array|null, found: Track|null}} Track  one row: items that do not overlap, by start;
   *   `index` leads to the items of the lane, `prefix[i]` is the length of the items before i, ns
   * @typedef {{type: string, key: string, group: any, title: string, index: number, starts: Float64Array,
   *   ends: Float64Array, what: Int32Array, rows: number, tracks: Track[], data: any, height: number, hidden: boolean,
   *   collapsed: boolean, element: HTMLElement, canvas: HTMLCanvasElement, drawn: number, [extra: string]: any}} Lane
   * @typedef {{lane: number, item: number}} Chosen
   * @typedef {{lazy?: boolean, initial?: 'whole'|'window'|'typical', rows?: number}} Options
   */

  const ROW_HEIGHT = 19;
  const BAR_HEIGHT = 17;
  const COLLAPSED_HEIGHT = 12;
  const IDLE_HEIGHT = 30;
  const METRIC_HEIGHT = 32;
  const LANE_PADDING = 3;
  const RULER_HEIGHT = 42;
  const NARROW = 1.5;
  const SHORTEST_SPAN_NS = 20;
  const ROWS_SHOWN = 40;
  const MARGIN = 0.01;
  const DIMMED = 0.2;
  const SCROLL_GRACE_MS = 250;
  const FONT = '12px Inter, "Noto Sans", "Liberation Sans", Arial, "Noto Sans KR", "Noto Sans CJK KR", sans-serif';
  const KINDS = ['kernel', 'graph', 'memcpy', 'memset'];
  const COPY = 2;
  // Paul Tol's light scheme: made for dark text on it, and told apart with any common colour blindness.
  const RANGE_COLOURS = ['#77aadd', '#99ddff', '#44bb99', '#bbcc33', '#eedd88', '#ee8866', '#ffaabb', '#aaaa88'];
  const BLOCK = 64;

  // ---------------------------------------------------------------------------------------------------- numbers

  const MISSING = '–';
  /** @type {[number, string][]} */
  const DURATIONS = [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']];
  /** @type {[number, string][]} */
  const SIZES = [[2 ** 40, 'TiB'], [2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB'], [1, 'B']];
  /** @type {[number, string][]} */
  const RATES = [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, '']];

  /**
   * Text of a number with separators, rounded as Python does: exact ties go to the even digit.
   * @param {number} value @param {number} decimals
   */
  function fixed(value, decimals) {
    const size = Math.abs(value);
    let text = size.toFixed(decimals);
    if (Number.isInteger(size * 1048576)) {
      const exact = size.toFixed(40);
      const end = exact.indexOf('.') + 1 + decimals;
      const floor = exact.slice(0, decimals ? end : end - 1);
      if (/^50*$/.test(exact.slice(end)) && '02468'.includes(floor[floor.length - 1])) text = floor;
    }
    const [whole, part] = text.split('.');
    const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
    return (value < 0 ? '-' : '') + grouped + (part === undefined ? '' : '.' + part);
  }

  /** @param {number} value @param {number} digits */
  function significant(value, digits = 3) {
    if (value === 0) return '0';
    const size = Math.abs(value);
    const whole = size >= 1 ? String(BigInt(Math.trunc(size))).length : 0;
    if (whole >= digits) return fixed(value, 0);
    if (whole) return fixed(value, digits - whole);
    let zeros = 0;
    for (let rest = size; rest < 0.1 && zeros < 6; rest *= 10) zeros += 1;
    return fixed(value, digits + zeros);
  }

  /** @param {number} value @param {[number, string][]} units */
  function scaled(value, units) {
    const [size, unit] = units.find(([least]) => Math.abs(value) >= least) ?? units[units.length - 1];
    return [significant(value / size), unit];
  }

  /** The same text as `nitro.reports.numbers.duration`. @param {number|null|undefined} ns */
  function duration(ns) {
    return ns === null || ns === undefined ? MISSING : scaled(ns, DURATIONS).join(' ');
  }

  /** @param {number} bytes */
  const byteSize = (bytes) => scaled(bytes, SIZES).join(' ');

  /** @param {number} hertz */
  const frequency = (hertz) => scaled(hertz, RATES).join(' ') + 'Hz';

  /** @param {number} ns */
  const exactly = (ns) => fixed(ns, 0) + ' ns';

  // --------------------------------------------------------------------------------------------------- decoding

  /** @param {string} text */
  function bytesOf(text) {
    if ('fromBase64' in Uint8Array) return /** @type {any} */ (Uint8Array).fromBase64(text);
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  }

  /** @param {string} text */
  async function unpack(text) {
    const stream = new Blob([bytesOf(text.trim())]).stream().pipeThrough(new DecompressionStream('deflate'));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const size = new DataView(bytes.buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
    const body = bytes.subarray(4 + size);
    /** @param {number[]} reference @returns {Float64Array} */
    const column = ([offset, count, base, planes, cumulative]) => {
      const values = new Float64Array(count);
      const [one, two] = [offset + count, offset + 2 * count];
      if (planes === 1) for (let i = 0; i < count; i++) values[i] = base + body[offset + i];
      else if (planes === 2) for (let i = 0; i < count; i++) values[i] = base + (body[offset + i] | (body[one + i] << 8));
      else if (planes >= 3) {
        for (let i = 0; i < count; i++) values[i] = base + (body[offset + i] | (body[one + i] << 8) | (body[two + i] << 16));
      } else values.fill(base);
      for (let plane = 3, weight = 2 ** 24; plane < planes; plane++, weight *= 256) {
        const from = offset + plane * count;
        for (let i = 0; i < count; i++) values[i] += body[from + i] * weight;
      }
      if (cumulative) for (let i = 1; i < count; i++) values[i] += values[i - 1];
      return values;
    };
    return modelOf(header, column);
  }

  /** @param {any} header @param {(reference: number[]) => Float64Array} column */
  function modelOf(header, column) {
    const small = (/** @type {number[]} */ reference) => new Int32Array(column(reference));
    const shapes = {
      kind: small(header.shapes.kind),
      name: small(header.shapes.name),
      launch: header.shapes.launch.map(column),
      bytes: column(header.shapes.bytes),
      copyKind: small(header.shapes.copyKind),
    };
    const model = {
      ...header,
      shapes,
      iterations: {
        starts: column(header.iterations.starts),
        ends: column(header.iterations.ends),
        names: header.iterations.names,
      },
      items: 0,
    };
    model.bins.hole = model.typical ?? [0, 0];
    /** @type {Map<string, Float64Array>} */
    const times = new Map();
    for (const group of model.groups) {
      for (const lane of group.lanes) {
        if (lane.type === 'metric') decodeMetric(lane, column, times);
        else decodeSpans(lane, model, column, small);
        model.items += lane.starts.length;
      }
    }
    return model;
  }

  /** @param {any} lane @param {any} model @param {any} column @param {any} small */
  function decodeSpans(lane, model, column, small) {
    const starts = column(lane.gap);
    const lengths = column(lane.length);
    const ends = new Float64Array(starts.length);
    for (let i = 0, end = model.start; i < starts.length; i++) {
      starts[i] += end;
      end = starts[i] + lengths[i];
      ends[i] = end;
    }
    lane.starts = starts;
    lane.ends = ends;
    lane.what = small(lane.what);
    lane.tracks = tracksOf(starts, ends, lane.rows, lane.rows > 1 ? column(lane.row) : null);
    if (lane.launches) {
      const { before, took, thread } = lane.launches;
      lane.launches = { before: column(before), took: column(took), thread: small(thread) };
    }
    if (lane.type === 'stream') {
      const { kind } = model.shapes;
      lane.mixed = lane.what.some((/** @type {number} */ shape) => kind[shape] >= COPY);
    }
    if (lane.type === 'api') lane.more = lane.more ? binsOf(column(lane.more), model.bins) : null;
    if (lane.type === 'idle') {
      /** @type {Map<number, any>} */
      const causes = new Map();
      const count = new Uint32Array(model.causes.length);
      for (const cause of lane.what) count[cause] += 1;
      for (let cause = 0; cause < count.length; cause++) {
        if (!count[cause] && !(cause in lane.more)) continue;
        const index = new Uint32Array(count[cause]);
        for (let i = 0, n = 0; i < lane.what.length; i++) if (lane.what[i] === cause) index[n++] = i;
        const bins = cause in lane.more ? binsOf(column(lane.more[cause]), model.bins) : null;
        causes.set(cause, { track: partOf(starts, ends, index), bins });
      }
      lane.causes = causes;
    }
  }

  /** @param {any} lane @param {any} column @param {Map<string, Float64Array>} times */
  function decodeMetric(lane, column, times) {
    const key = lane.times.join();
    if (!times.has(key)) times.set(key, column(lane.times));
    const edges = /** @type {Float64Array} */ (times.get(key));
    const mean = column(lane.mean);
    for (let i = 0; i < mean.length; i++) mean[i] /= lane.scale;
    lane.starts = edges.subarray(0, mean.length);
    lane.ends = edges.subarray(1);
    lane.what = new Int32Array(0);
    lane.mean = mean;
    lane.low = lane.low ? column(lane.low) : mean;
    lane.high = lane.high ? column(lane.high) : mean;
    lane.rows = 1;
    lane.tracks = [];
    lane.integral = new Float64Array(mean.length + 1);
    let top = 0;
    for (let i = 0; i < mean.length; i++) {
      lane.integral[i + 1] = lane.integral[i] + mean[i] * (edges[i + 1] - edges[i]);
      top = Math.max(top, lane.high[i]);
    }
    lane.isClock = lane.metric.endsWith('clock');
    lane.top = lane.isClock ? top || 1 : 100;
    const blocks = Math.ceil(mean.length / BLOCK);
    lane.blockLow = new Float64Array(blocks).fill(Infinity);
    lane.blockHigh = new Float64Array(blocks).fill(-Infinity);
    for (let i = 0; i < mean.length; i++) {
      const block = Math.floor(i / BLOCK);
      lane.blockLow[block] = Math.min(lane.blockLow[block], lane.low[i]);
      lane.blockHigh[block] = Math.max(lane.blockHigh[block], lane.high[i]);
    }
  }

  /** Bins of coverage with their prefix sums in ns. @param {Float64Array} shares @param {any} bins */
  function binsOf(shares, bins) {
    const prefix = new Float64Array(shares.length + 1);
    for (let i = 0; i < shares.length; i++) prefix[i + 1] = prefix[i] + (shares[i] / 255) * bins.width;
    return { start: bins.start, width: bins.width, prefix, hole: bins.hole };
  }

  /** How many ns before a moment bins cover. @param {any} bins @param {number} time */
  function binned(bins, time) {
    const place = (time - bins.start) / bins.width;
    if (place <= 0) return 0;
    const { prefix } = bins;
    const bin = Math.floor(place);
    if (bin >= prefix.length - 1) return prefix[prefix.length - 1];
    // In the typical iteration everything is an item of its own: what a bin covers lies beside it.
    const [low, high] = bins.hole;
    const begin = bins.start + bin * bins.width;
    const outside = (/** @type {number} */ end) =>
      end - begin - Math.max(Math.min(end, high) - Math.max(begin, low), 0);
    return prefix[bin] + (outside(time) / (outside(begin + bins.width) || 1)) * (prefix[bin + 1] - prefix[bin]);
  }

  /**
   * @param {Float64Array} starts @param {Float64Array} ends @param {number} rows @param {Float64Array|null} row
   * @returns {Track[]}
   */
  function tracksOf(starts, ends, rows, row) {
    if (!row) return [{ starts, ends, index: null, prefix: null, copies: null, found: null }];
    const sizes = new Uint32Array(rows);
    for (let i = 0; i < row.length; i++) sizes[row[i]] += 1;
    const index = [...sizes].map((size) => new Uint32Array(size));
    sizes.fill(0);
    for (let i = 0; i < row.length; i++) index[row[i]][sizes[row[i]]++] = i;
    return index.map((mine) => partOf(starts, ends, mine));
  }

  /** @param {Float64Array} starts @param {Float64Array} ends @param {Uint32Array} index @returns {Track} */
  function partOf(starts, ends, index) {
    const part = {
      starts: new Float64Array(index.length),
      ends: new Float64Array(index.length),
      index,
      prefix: null,
      copies: null,
      found: null,
    };
    for (let i = 0; i < index.length; i++) {
      part.starts[i] = starts[index[i]];
      part.ends[i] = ends[index[i]];
    }
    return part;
  }

  /** @type {Map<string, Promise<any>>} */
  const decoded = new Map();

  /** Decode a text once, however many timelines of the page show it. @param {string|Element} source */
  function modelFor(source) {
    const text = typeof source === 'string' ? source : source.textContent ?? '';
    let model = decoded.get(text);
    if (!model) {
      model = unpack(text);
      decoded.set(text, model);
    }
    return model;
  }

  // ---------------------------------------------------------------------------------------------------- searching

  /** Number of values below `limit` in an ascending array. @param {Float64Array} values @param {number} limit */
  function lower(values, limit, low = 0, high = values.length) {
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (values[middle] < limit) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Number of values up to `limit` in an ascending array. @param {Float64Array} values @param {number} limit */
  function upper(values, limit, low = 0, high = values.length) {
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (values[middle] <= limit) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Number of values below `limit`, looked for from `from` on in growing steps: near values are found at once. */
  function gallop(/** @type {Float64Array} */ values, /** @type {number} */ limit, /** @type {number} */ from) {
    let low = from;
    for (let step = 1; low < values.length && values[low] < limit; step *= 2) {
      if (low + step >= values.length || values[low + step] >= limit) {
        return lower(values, limit, low + 1, Math.min(low + step, values.length));
      }
      low += step;
    }
    return low;
  }

  /** @param {Track} track */
  function prefixOf(track) {
    if (!track.prefix) {
      const { starts, ends } = track;
      const prefix = new Float64Array(starts.length + 1);
      for (let i = 0; i < starts.length; i++) prefix[i + 1] = prefix[i] + (ends[i] - starts[i]);
      track.prefix = prefix;
    }
    return track.prefix;
  }

  /** When any item of some rows runs. @param {Track[]} tracks @returns {Track} */
  function unionOf(tracks) {
    const empty = { starts: new Float64Array(0), ends: new Float64Array(0), index: null, prefix: null, copies: null, found: null };
    if (!tracks.length) return empty;
    if (tracks.length > 2) {
      const half = tracks.length >> 1;
      return unionOf([unionOf(tracks.slice(0, half)), unionOf(tracks.slice(half))]);
    }
    const [a, b] = [tracks[0], tracks[1] ?? empty];
    const starts = new Float64Array(a.starts.length + b.starts.length);
    const ends = new Float64Array(starts.length);
    let count = 0;
    for (let i = 0, j = 0; i < a.starts.length || j < b.starts.length; ) {
      const isFirst = j >= b.starts.length || (i < a.starts.length && a.starts[i] <= b.starts[j]);
      const [start, end] = isFirst ? [a.starts[i], a.ends[i++]] : [b.starts[j], b.ends[j++]];
      if (count && start <= ends[count - 1]) ends[count - 1] = Math.max(ends[count - 1], end);
      else {
        starts[count] = start;
        ends[count++] = end;
      }
    }
    return { ...empty, starts: starts.subarray(0, count), ends: ends.subarray(0, count) };
  }

  /** The longest of every `BLOCK` items, ns. @param {{starts: Float64Array, ends: Float64Array}} items */
  function longestOf({ starts, ends }) {
    const longest = new Float64Array(Math.ceil(starts.length / BLOCK));
    for (let i = 0; i < starts.length; i++) {
      const block = Math.floor(i / BLOCK);
      longest[block] = Math.max(longest[block], ends[i] - starts[i]);
    }
    return longest;
  }

  /** How many ns before a moment the items of a row cover. @param {Track} track @param {number} time */
  function covered(track, time, count = lower(track.starts, time)) {
    return prefixOf(track)[count] - (count ? Math.max(0, track.ends[count - 1] - time) : 0);
  }

  // ------------------------------------------------------------------------------------------------------ colours

  /** @param {string} text */
  function hash(text) {
    let value = 2166136261;
    for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 16777619);
    return (value ^ (value >>> 15)) >>> 0;
  }

  /** @param {string} colour  #rrggbb @returns {[number, number, number]} */
  const channels = (colour) => {
    const value = parseInt(colour.slice(1), 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  };

  /** @param {string} one @param {string} other @param {number} share  of the other */
  function mixed(one, other, share) {
    const [a, b] = [channels(one), channels(other)];
    const parts = a.map((value, i) => Math.round(value + (b[i] - value) * share).toString(16).padStart(2, '0'));
    return '#' + parts.join('');
  }

  /** The colour of readable text on a colour. @param {string} colour */
  function inkOn(colour) {
    const [r, g, b] = channels(colour).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.19 ? '#14181c' : '#ffffff';
  }

  // -------------------------------------------------------------------------------------------------------- parts

  /**
   * @param {string} tag @param {string} className @param {Record<string, string>} attributes
   * @returns {any}
   */
  function element(tag, className, attributes = {}) {
    const made = document.createElement(tag);
    made.className = className;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  /** @param {string} template @param {Record<string, unknown>} values */
  const filled = (template, values) => template.replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all));

  let mounted = 0;

  /** One timeline on the page. */
  class Timeline {
    /** @param {HTMLElement} container @param {string|Element} packed @param {Record<string, string>} labels
     *  @param {Options} options */
    constructor(container, packed, labels, options) {
      this.container = container;
      this.labels = labels;
      this.options = options;
      this.number = ++mounted;
      /** @type {any} */ this.model = null;
      /** @type {Lane[]} */ this.lanes = [];
      /** @type {Chosen|null} */ this.chosen = null;
      /** @type {Chosen|null} */ this.hovered = null;
      this.lane = 0;
      this.t0 = 0;
      this.t1 = 1;
      this.ratio = 1;
      /** @type {Record<string, string>} */ this.theme = {};
      /** @type {string[]} */ this.shapeColours = [];
      /** @type {string[]} */ this.shapeInks = [];
      /** @type {string[]} */ this.causeColours = [];
      /** @type {string[]} */ this.callColours = [];
      /** @type {string[]} */ this.rangePaints = [];
      /** @type {number[]} */ this.rangeColours = [];
      this.version = 1;
      this.width = 0;
      this.query = '';
      this.matches = 0;
      this.rowsShown = options.rows ?? ROWS_SHOWN;
      this.frames = 0;
      this.lastFrameMs = 0;
      this.decodeMs = 0;
      this.scheduled = 0;
      this.lastScroll = -Infinity;
      /** @type {any[]} */ this.order = [];
      /** @type {Map<string, number>} */ this.textWidths = new Map();
      container.classList.add('nt');
      container.replaceChildren();
      this.status = element('p', 'nt-status', { role: 'status' });
      this.status.textContent = this.say('loading');
      container.append(this.status);
      this.ready = this.whenSeen().then(() => this.start(packed));
      /** @type {any} */ (container).nitroTimeline = this.handle();
    }

    /** @param {string} key @param {Record<string, unknown>} values */
    say(key, values = {}) {
      return filled(this.labels[key] ?? key, values);
    }

    handle() {
      return {
        ready: this.ready,
        zoomTo: (/** @type {number} */ start, /** @type {number} */ end) => this.show(start, end),
        select: (/** @type {number} */ lane, /** @type {number} */ item) => this.choose({ lane, item }, true),
        itemAt: (/** @type {string} */ key, /** @type {number} */ i) => {
          const lane = this.lanes.find((each) => each.key === key);
          return lane && i >= 0 && i < lane.starts.length ? this.facts(lane, i) : null;
        },
        visibleSpan: () => [this.t0, this.t1],
        laneKeys: () => this.lanes.map((lane) => lane.key),
        laneLength: (/** @type {string} */ key) => this.lanes.find((each) => each.key === key)?.starts.length ?? 0,
        search: (/** @type {string} */ text) => this.search(text),
        redraw: () => this.paint(),
        stats: () => ({
          items: this.model?.items ?? 0,
          frames: this.frames,
          lastFrameMs: this.lastFrameMs,
          decodeMs: this.decodeMs,
          matches: this.matches,
        }),
      };
    }

    /** Resolves when the container comes into view, or at once where it need not wait. */
    whenSeen() {
      if (this.options.lazy === false || !('IntersectionObserver' in globalThis)) return Promise.resolve();
      return new Promise((resolve) => {
        const observer = new IntersectionObserver(
          (entries) => {
            if (!entries.some((entry) => entry.isIntersecting)) return;
            observer.disconnect();
            resolve(undefined);
          },
          { rootMargin: '300px' },
        );
        observer.observe(this.container);
        addEventListener('beforeprint', () => resolve(undefined), { once: true });
      });
    }

    /** @param {string|Element} packed */
    async start(packed) {
      if (!('DecompressionStream' in globalThis)) {
        this.status.textContent = this.say('unsupported');
        return;
      }
      const begin = performance.now();
      try {
        this.model = await modelFor(packed);
      } catch {
        this.status.textContent = this.say('damaged');
        return;
      }
      this.decodeMs = performance.now() - begin;
      if (!this.model.groups.length || this.model.end <= this.model.start) {
        this.status.textContent = this.say('empty');
        return;
      }
      this.status.remove();
      this.colourItems();
      this.build();
      this.listen();
      this.readTheme();
      this.layOut();
      const { window: span, typical } = this.model;
      const initial = this.options.initial ?? 'window';
      if (initial === 'typical' && typical) this.show(typical[0], typical[1]);
      else if (initial !== 'whole' && span[1] > span[0]) this.show(span[0], span[1], MARGIN);
      else this.showWhole();
      this.paint();
    }

    // ------------------------------------------------------------------------------------------------- building

    colourItems() {
      const { shapes, names, short, colours, causes } = this.model;
      this.shapeColours = [];
      for (let shape = 0; shape < shapes.kind.length; shape++) {
        const base = colours[KINDS[shapes.kind[shape]]];
        if (shapes.kind[shape] !== 0) this.shapeColours.push(base);
        else {
          const step = (hash(short[shapes.name[shape]] || names[shapes.name[shape]] || '') % 7) - 3;
          this.shapeColours.push(step < 0 ? mixed(base, '#003a2a', -step * 0.13) : mixed(base, '#d9f2e8', step * 0.13));
        }
      }
      this.shapeInks = this.shapeColours.map(inkOn);
      this.causeColours = causes.map((/** @type {string} */ cause) => colours[cause] ?? '#888888');
      /** @type {Map<string, number>} */
      const families = new Map();
      const ranges = new Set(this.lanesOf('nvtx').flatMap((lane) => [...new Set(lane.what)]));
      this.rangeColours = names.map((/** @type {string} */ name, /** @type {number} */ index) => {
        if (!ranges.has(index)) return 0;
        const family = name.replace(/\d+/g, '#');
        let colour = families.get(family);
        if (colour === undefined) {
          colour = hash(family) % RANGE_COLOURS.length;
          // While there are colours enough, no two families share one.
          const used = new Set(families.values());
          for (let i = 0; i < RANGE_COLOURS.length && used.has(colour); i++) colour = (colour + 1) % RANGE_COLOURS.length;
          families.set(family, colour);
        }
        return colour;
      });
      this.callColours = this.model.callCauses.map((/** @type {number} */ cause) =>
        cause < 0 ? '#888888' : this.causeColours[cause],
      );
    }

    /** @returns {any[]} */
    threads() {
      return this.model.groups.filter((/** @type {any} */ group) => group.type === 'thread');
    }

    /** @param {string} type @returns {any[]} */
    lanesOf(type) {
      return this.model.groups.flatMap((/** @type {any} */ group) =>
        group.lanes.filter((/** @type {any} */ lane) => lane.type === type),
      );
    }

    /** @param {any} group */
    groupTitle(group) {
      if (group.type === 'thread') {
        const pids = new Set(this.threads().map((each) => each.pid));
        return this.say(pids.size > 1 ? 'thread_of_process' : 'thread', group);
      }
      return this.say(group.name ? 'gpu_named' : 'gpu', group);
    }

    /** @param {any} data @param {any} group */
    laneTitle(data, group) {
      if (data.type === 'metric') return this.say(`metric_${data.metric}`);
      if (data.type !== 'stream') return this.say(`lane_${data.type}`);
      const same = group.lanes.filter((/** @type {any} */ each) => each.type === 'stream' && each.stream === data.stream);
      return this.say(same.length > 1 ? 'stream_of_context' : 'stream', { ...data, id: data.stream });
    }

    build() {
      const { model, number } = this;
      this.tools = element('div', 'nt-tools');
      const button = (/** @type {string} */ key, /** @type {string} */ text, /** @type {() => void} */ act) => {
        const made = element('button', 'nt-button', { type: 'button' });
        made.textContent = text;
        if (text !== this.say(key)) made.setAttribute('aria-label', this.say(key));
        made.title = this.say(key);
        made.dataset.act = key;
        made.addEventListener('click', act);
        return made;
      };
      const views = element('span', 'nt-buttons');
      views.append(button('whole', this.say('whole'), () => this.showWhole()));
      if (model.window[1] > model.window[0]) {
        views.append(button('window', this.say('window'), () => this.show(model.window[0], model.window[1], MARGIN)));
      }
      if (model.typical) {
        views.append(button('typical', this.say('typical'), () => this.show(model.typical[0], model.typical[1], MARGIN)));
      }
      const zooms = element('span', 'nt-buttons');
      zooms.append(
        button('zoom_out', '−', () => this.zoom(2)),
        button('zoom_in', '+', () => this.zoom(0.5)),
      );
      const finder = element('span', 'nt-buttons nt-finder', { role: 'search' });
      this.input = element('input', 'nt-search', {
        type: 'search',
        placeholder: this.say('search'),
        'aria-label': this.say('search'),
        spellcheck: 'false',
        autocomplete: 'off',
      });
      this.finding = element('span', 'nt-finding', { role: 'status' });
      finder.append(
        this.input,
        button('previous', '‹', () => this.nextMatch(-1)),
        button('next', '›', () => this.nextMatch(1)),
        this.finding,
      );
      this.tools.append(views, zooms, finder);

      const help = element('p', 'nt-hidden', { id: `nt-help-${number}` });
      help.textContent = this.say('help');
      this.chart = element('div', 'nt-chart', {
        role: 'application',
        tabindex: '0',
        'aria-label': this.say('title'),
        'aria-describedby': help.id,
      });
      const top = element('div', 'nt-top');
      this.corner = element('div', 'nt-corner');
      this.ruler = element('canvas', 'nt-ruler', { 'aria-hidden': 'true' });
      top.append(this.corner, this.ruler);
      this.chart.append(top);
      for (const group of model.groups) this.buildGroup(group);
      this.cursor = element('div', 'nt-cursor', { 'aria-hidden': 'true' });
      this.brush = element('div', 'nt-brush', { 'aria-hidden': 'true' });
      this.chart.append(this.cursor, this.brush);
      this.more = element('button', 'nt-button nt-more', { type: 'button' });
      this.more.addEventListener('click', () => {
        this.rowsShown += this.options.rows ?? ROWS_SHOWN;
        this.layOut();
      });
      this.details = element('div', 'nt-details', { 'aria-live': 'polite' });
      this.tip = element('div', 'nt-tip', { 'aria-hidden': 'true' });
      this.container.append(this.tools, help, this.chart, this.more, this.legend(), this.details, this.notes(), this.tip);
      this.order = this.priority();
      this.describe();
    }

    /** @param {any} group */
    buildGroup(group) {
      const box = element('div', 'nt-group', { 'data-key': group.key });
      const title = this.groupTitle(group);
      const head = element('button', 'nt-group-head', { type: 'button', 'aria-expanded': 'true' });
      head.textContent = title;
      head.title = title;
      const state = { ...group, title, element: box, head, closed: false };
      head.addEventListener('click', () => {
        state.closed = !state.closed;
        head.setAttribute('aria-expanded', String(!state.closed));
        this.layOut();
      });
      box.append(head);
      for (const data of group.lanes) {
        const name = this.laneTitle(data, group);
        const lane = element('div', 'nt-lane', { 'data-key': data.key });
        const label = element('button', 'nt-head', { type: 'button', 'aria-expanded': 'true' });
        const text = element('span', 'nt-head-text');
        text.textContent = name;
        label.append(text);
        label.title = name;
        const canvas = element('canvas', 'nt-canvas', { 'aria-hidden': 'true' });
        lane.append(label, canvas);
        box.append(lane);
        /** @type {Lane} */
        const made = {
          ...data,
          data,
          group: state,
          title: name,
          index: this.lanes.length,
          height: 0,
          hidden: false,
          collapsed: false,
          element: lane,
          canvas,
          drawn: 0,
          // Rows are shared between timelines of the same data; what is found in them is not.
          tracks: data.tracks.map((/** @type {Track} */ track) => ({ ...track, found: null })),
        };
        label.addEventListener('click', () => {
          made.collapsed = !made.collapsed;
          label.setAttribute('aria-expanded', String(!made.collapsed));
          this.lane = made.index;
          this.layOut();
        });
        this.lanes.push(made);
      }
      this.chart.append(box);
    }

    legend() {
      const box = element('ul', 'nt-legend');
      const add = (/** @type {string} */ colour, /** @type {string} */ text, /** @type {string} */ title) => {
        const entry = element('li', '');
        const swatch = element('span', 'nt-swatch', { 'aria-hidden': 'true' });
        swatch.style.background = colour;
        entry.append(swatch, text);
        entry.title = title;
        box.append(entry);
      };
      const { model } = this;
      KINDS.forEach((kind, code) => {
        if (model.shapes.kind.includes(code)) add(model.colours[kind], this.say(`kind_${kind}`), '');
      });
      model.causes.forEach((/** @type {string} */ cause, /** @type {number} */ code) => {
        if (!this.lanes.some((lane) => lane.causes?.has(code))) return;
        add(this.causeColours[code], this.say(`cause_${cause}`), this.say(`meaning_${cause}`));
      });
      return box;
    }

    notes() {
      const { model } = this;
      const box = element('div', 'nt-notes');
      const say = (/** @type {string} */ key, values = {}) => {
        const line = element('p', '');
        line.textContent = this.say(key, values);
        box.append(line);
      };
      say('hint');
      const idle = Math.max(0, ...this.lanes.map((lane) => lane.atLeast ?? 0));
      if (model.callsAtLeast) say('calls_not_singly', { limit: duration(model.callsAtLeast) });
      if (idle) say('idle_not_singly', { limit: duration(idle) });
      if (model.threadsLeftOut) say('threads_left_out', { count: fixed(model.threadsLeftOut, 0) });
      if (!model.hasLaunches) say('launches_left_out');
      if (!model.hasShapes) say('shapes_left_out');
      return box;
    }

    /** The groups by what is shown first when there are too many rows: a thread, a GPU, then the others in turn. */
    priority() {
      const groups = [...new Set(this.lanes.map((lane) => lane.group))];
      const threads = groups.filter((group) => group.type === 'thread');
      const devices = groups.filter((group) => group.type === 'device');
      const ordered = [];
      while (threads.length || devices.length) {
        if (threads.length) ordered.push(threads.shift());
        if (devices.length) ordered.push(devices.shift());
      }
      return ordered;
    }

    // --------------------------------------------------------------------------------------------------- layout

    layOut() {
      let left = this.rowsShown;
      let missing = 0;
      for (const group of this.order) {
        const lanes = this.lanes.filter((lane) => lane.group === group);
        let any = false;
        for (const lane of lanes) {
          const rows = lane.collapsed ? 1 : lane.rows;
          const fits = left >= rows || left === this.rowsShown;
          lane.hidden = group.closed || !fits;
          if (!fits) missing += rows;
          else {
            left -= group.closed ? 0 : rows;
            any = true;
          }
        }
        group.element.hidden = !any;
      }
      for (const lane of this.lanes) {
        lane.element.hidden = lane.hidden;
        lane.height = lane.collapsed
          ? COLLAPSED_HEIGHT
          : lane.type === 'metric'
            ? METRIC_HEIGHT
            : lane.type === 'idle'
              ? IDLE_HEIGHT
              : lane.rows * ROW_HEIGHT + LANE_PADDING;
        lane.element.style.height = `${lane.height}px`;
      }
      this.more.hidden = !missing;
      this.more.textContent = this.say('more_rows', { count: fixed(missing, 0) });
      this.resize();
    }

    resize() {
      const width = Math.max(1, Math.floor((this.ruler.parentElement?.clientWidth ?? 1) - this.corner.offsetWidth));
      const ratio = globalThis.devicePixelRatio || 1;
      this.width = width;
      this.ratio = ratio;
      for (const [canvas, height] of [
        [this.ruler, RULER_HEIGHT],
        ...this.lanes.filter((lane) => !lane.hidden).map((lane) => [lane.canvas, lane.height]),
      ]) {
        const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
        if (canvas.width !== w || canvas.height !== h) {
          canvas.width = w;
          canvas.height = h;
          canvas.style.width = `${width}px`;
          canvas.style.height = `${height}px`;
        }
      }
      this.invalidate();
    }

    readTheme() {
      const style = getComputedStyle(this.container);
      const read = (/** @type {string} */ name) => style.getPropertyValue(`--nt-${name}`).trim();
      this.theme = {
        background: read('background') || '#ffffff',
        text: read('text') || '#1c2126',
        muted: read('muted') || '#68727d',
        grid: read('grid') || '#e6e9ec',
        track: read('track') || '#f4f6f7',
        outside: read('outside') || 'rgba(120, 130, 140, 0.10)',
        accent: read('accent') || '#0072b2',
        call: read('call') || '#8fa3b8',
      };
      this.rangePaints = RANGE_COLOURS.map((colour) => mixed(colour, this.theme.background.slice(0, 7), 0.22));
      this.invalidate();
    }

    // ------------------------------------------------------------------------------------------------- the view

    get limits() {
      const { start, end } = this.model;
      const margin = Math.max((end - start) * MARGIN, SHORTEST_SPAN_NS);
      return [start - margin, end + margin];
    }

    /** Show a span of time, ns. @param {number} start @param {number} end @param {number} margin  share of it */
    show(start, end, margin = 0) {
      if (!this.model) return;
      const [low, high] = this.limits;
      let span = Math.max((end - start) * (1 + 2 * margin), SHORTEST_SPAN_NS);
      span = Math.min(span, high - low);
      let from = (start + end) / 2 - span / 2;
      from = Math.min(Math.max(from, low), high - span);
      this.t0 = from;
      this.t1 = from + span;
      this.invalidate();
    }

    showWhole() {
      const [low, high] = this.limits;
      this.show(low, high);
    }

    /** @param {number} factor  of the visible span @param {number} [at]  the moment that stays in place */
    zoom(factor, at) {
      const around = at ?? this.anchor();
      const span = this.t1 - this.t0;
      const [low, high] = this.limits;
      const next = Math.min(Math.max(span * factor, SHORTEST_SPAN_NS), high - low);
      const from = around - ((around - this.t0) / span) * next;
      this.show(from, from + next);
    }

    /** The middle of the chosen item where it is in sight, else of the view. */
    anchor() {
      if (this.chosen) {
        const lane = this.lanes[this.chosen.lane];
        const middle = (lane.starts[this.chosen.item] + lane.ends[this.chosen.item]) / 2;
        if (middle >= this.t0 && middle <= this.t1) return middle;
      }
      return (this.t0 + this.t1) / 2;
    }

    /** @param {number} ns */
    pan(ns) {
      this.show(this.t0 + ns, this.t1 + ns);
    }

    /** @param {number} x  CSS pixels from the left of the canvas */
    timeAt(x) {
      return this.t0 + (x / this.width) * (this.t1 - this.t0);
    }

    invalidate() {
      this.version += 1;
      this.schedule();
    }

    schedule() {
      if (!this.scheduled && this.model) this.scheduled = requestAnimationFrame(() => this.paint());
    }

    // -------------------------------------------------------------------------------------------------- drawing

    paint(everything = false) {
      if (this.scheduled) cancelAnimationFrame(this.scheduled);
      this.scheduled = 0;
      if (!this.model || !this.width || !this.chart) return;
      const begin = performance.now();
      this.drawRuler();
      const tall = globalThis.innerHeight;
      for (const lane of this.lanes) {
        if (lane.hidden || lane.drawn === this.version) continue;
        if (!everything) {
          const box = lane.element.getBoundingClientRect();
          if (box.bottom < -50 || box.top > tall + 50) continue;
        }
        this.drawLane(lane);
        lane.drawn = this.version;
      }
      this.frames += 1;
      this.lastFrameMs = performance.now() - begin;
    }

    /** @param {HTMLCanvasElement} canvas */
    cleared(canvas) {
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: false }));
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.globalAlpha = 1;
      context.fillStyle = this.theme.background;
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      context.font = FONT;
      context.textBaseline = 'middle';
      return context;
    }

    /** Ticks: [distance in ns, unit, size of the unit]. @returns {[number, string, number]} */
    ticks() {
      const least = ((this.t1 - this.t0) * 110) / this.width;
      let step = 1;
      for (const factors = [2, 2.5, 2]; step < least; factors.push(/** @type {number} */ (factors.shift()))) {
        step *= factors[0];
      }
      step = Math.round(step);
      const [size, unit] = DURATIONS.find(([ns]) => step >= ns) ?? DURATIONS[3];
      return [step, unit, size];
    }

    drawRuler() {
      const context = this.cleared(this.ruler);
      const { t0, t1, width, theme, model } = this;
      const pixels = width / (t1 - t0);
      const x = (/** @type {number} */ time) => (time - t0) * pixels;
      this.shadeOutside(context, RULER_HEIGHT);
      const [step, unit, size] = this.ticks();
      const zero = model.zero;
      // Where numbers would get long, ticks count from a round moment that the corner names.
      let from = zero;
      if (Math.max(Math.abs(t0 - zero), Math.abs(t1 - zero)) / size >= 100000) {
        const round = 10 ** Math.ceil(Math.log10(t1 - t0));
        from = zero + Math.floor((t0 - zero) / round) * round;
      }
      context.fillStyle = theme.grid;
      const parts = step < 5 ? 1 : 5;
      for (let k = Math.ceil(((t0 - from) * parts) / step); ; k++) {
        const place = x(from + (k * step) / parts);
        if (place > width) break;
        context.fillRect(Math.round(place), 17, 1, k % parts ? 3 : 7);
      }
      context.fillStyle = theme.muted;
      context.textAlign = 'left';
      for (let k = Math.ceil((t0 - from) / step) - 1; ; k++) {
        const place = x(from + k * step);
        if (place > width) break;
        const text = (from === zero ? '' : '+') + fixed((k * step) / size, 0) + ' ' + unit;
        if (place < -2 || place + 4 + this.textWidth(context, text) > width) continue;
        context.fillText(text, place + 4, 9);
      }
      const exact = from === zero ? '' : this.moment(from, true) + ' +';
      this.corner.replaceChildren();
      for (const text of [exact, '↔ ' + duration(t1 - t0)]) {
        const line = element('span', '');
        line.textContent = text;
        this.corner.append(line);
      }
      this.drawIterations(context, x);
      context.fillStyle = theme.grid;
      context.fillRect(0, RULER_HEIGHT - 1, width, 1);
    }

    /** A moment since the begin of the session to the ns. @param {number} time @param {boolean} isShort  whether zeros
     *  at the end are left out */
    moment(time, isShort = false) {
      const ns = time - this.model.zero;
      const text = (BigInt(Math.trunc(Math.abs(ns)))).toString().padStart(10, '0');
      const part = isShort ? text.slice(-9).replace(/0+$/, '') : text.slice(-9);
      return (ns < 0 ? '-' : '') + fixed(Number(text.slice(0, -9)), 0) + (part && '.' + part) + ' s';
    }

    /** @param {CanvasRenderingContext2D} context @param {(time: number) => number} x */
    drawIterations(context, x) {
      const { starts, names } = this.model.iterations;
      const { theme, width, t0, t1 } = this;
      const [y, height] = [25, 14];
      const last = this.model.iterations.ends[starts.length - 1];
      for (let i = Math.max(lower(starts, t0) - 1, 0); i < starts.length && starts[i] < t1; i++) {
        const from = Math.max(x(starts[i]), -2);
        const to = Math.min(x(i + 1 < starts.length ? starts[i + 1] : last), width + 2);
        if (to - from < 3) {
          // Too dense to tell apart: a calm band as far as the next one that can be told.
          const next = Math.max(gallop(starts, this.timeAt(from + 3), i) - 1, i + 1);
          context.fillStyle = theme.grid;
          context.fillRect(from, y, Math.min(3, x(next < starts.length ? starts[next] : last) - from), height);
          i = next - 1;
          continue;
        }
        const typical = this.model.typical && starts[i] === this.model.typical[0];
        context.fillStyle = typical ? theme.accent : theme.grid;
        context.globalAlpha = typical ? 0.25 : 1;
        context.fillRect(from, y, to - from - 1, height);
        context.globalAlpha = 1;
        context.fillStyle = theme.text;
        this.write(context, names[i], Math.max(from, 0) + 5, y + height / 2 + 0.5, to - from - 10);
      }
    }

    /** @param {CanvasRenderingContext2D} context @param {number} height */
    shadeOutside(context, height) {
      const [start, end] = this.model.window;
      if (end <= start) return;
      const pixels = this.width / (this.t1 - this.t0);
      const left = Math.min(Math.max((start - this.t0) * pixels, 0), this.width);
      const right = Math.min(Math.max((end - this.t0) * pixels, 0), this.width);
      context.fillStyle = this.theme.outside;
      if (left > 0) context.fillRect(0, 0, left, height);
      if (right < this.width) context.fillRect(right, 0, this.width - right, height);
      context.fillStyle = this.theme.accent;
      context.globalAlpha = 0.55;
      if (left > 0 && left < this.width) context.fillRect(Math.round(left), 0, 1, height);
      if (right > 0 && right < this.width) context.fillRect(Math.round(right) - 1, 0, 1, height);
      context.globalAlpha = 1;
    }

    /** @param {Lane} lane */
    drawLane(lane) {
      const context = this.cleared(lane.canvas);
      const { t0, t1, width, theme } = this;
      const pixels = width / (t1 - t0);
      const [step] = this.ticks();
      context.fillStyle = theme.grid;
      context.globalAlpha = 0.7;
      for (let k = Math.ceil((t0 - this.model.zero) / step); ; k++) {
        const place = (this.model.zero + k * step - t0) * pixels;
        if (place > width) break;
        context.fillRect(Math.round(place), 0, 1, lane.height);
      }
      context.globalAlpha = 1;
      this.shadeOutside(context, lane.height);
      if (lane.type === 'metric') this.drawMetric(context, lane);
      else if (lane.type === 'idle') this.drawIdle(context, lane);
      else this.drawRows(context, lane);
      if (this.chosen?.lane === lane.index) this.frame(context, lane, this.chosen.item, theme.text, 2);
      if (this.hovered?.lane === lane.index) this.frame(context, lane, this.hovered.item, theme.text, 1);
    }

    /** Top and height of a row. @param {Lane} lane @param {number} row @returns {[number, number]} */
    rowBox(lane, row) {
      if (lane.type === 'metric' || lane.type === 'idle') return [2, lane.height - 4];
      if (!lane.collapsed) return [2 + row * ROW_HEIGHT, BAR_HEIGHT];
      const height = (COLLAPSED_HEIGHT - 2) / lane.rows;
      return [1 + row * height, Math.max(height, 1)];
    }

    /** @param {CanvasRenderingContext2D} context @param {Lane} lane @param {number} item @param {string} colour
     *  @param {number} thick */
    frame(context, lane, item, colour, thick) {
      const pixels = this.width / (this.t1 - this.t0);
      const left = Math.max((lane.starts[item] - this.t0) * pixels, -4);
      const right = Math.min((lane.ends[item] - this.t0) * pixels, this.width + 4);
      if (right < -4 || left > this.width + 4) return;
      const [y, height] = this.rowBox(lane, this.rowOf(lane, item));
      context.strokeStyle = colour;
      context.lineWidth = thick;
      const inset = thick / 2;
      context.strokeRect(left + inset, y + inset, Math.max(right - left - thick, 2), height - thick);
    }

    /** @param {Lane} lane @param {number} item */
    rowOf(lane, item) {
      if (lane.tracks.length < 2) return 0;
      return lane.tracks.findIndex(({ index }) => {
        if (!index) return false;
        let [low, high] = [0, index.length];
        while (low < high) {
          const middle = (low + high) >>> 1;
          if (index[middle] < item) low = middle + 1;
          else high = middle;
        }
        return index[low] === item;
      });
    }

    /** @param {CanvasRenderingContext2D} context @param {Lane} lane */
    drawRows(context, lane) {
      const { model } = this;
      if (lane.type === 'api' && lane.more) {
        const [y, height] = this.rowBox(lane, 0);
        context.globalAlpha = this.matches ? DIMMED : 1;
        this.drawBins(context, lane.more, y, height);
        context.globalAlpha = 1;
      }
      for (let row = 0; row < lane.tracks.length; row++) {
        const track = lane.tracks[row];
        if (!track.starts.length) continue;
        if (lane.mixed && !track.copies) track.copies = this.copyPrefix(lane, track);
        const [y, height] = this.rowBox(lane, row);
        let colour = (/** @type {number} */ item) => this.rangePaints[this.rangeColours[lane.what[item]]];
        let ink = (/** @type {number} */ _item) => '#14181c';
        let column = '#9aa7b4';
        let other = '';
        if (lane.type === 'stream') {
          colour = (item) => this.shapeColours[lane.what[item]];
          ink = (/** @type {number} */ item) => this.shapeInks[lane.what[item]];
          column = model.colours.kernel;
          other = model.colours.memcpy;
        } else if (lane.type === 'api') {
          colour = (item) => this.callColours[lane.what[item]];
          ink = (/** @type {number} */ item) => inkOn(this.callColours[lane.what[item]]);
          column = this.theme.call;
        }
        const style = { colour, ink, column, other, columnOf: lane.type === 'nvtx' ? colour : null };
        if (!this.matches) this.drawTrack(context, lane, track, y, height, style, 1);
        else {
          this.drawTrack(context, lane, track, y, height, style, DIMMED);
          if (track.found?.starts.length) this.drawTrack(context, lane, track.found, y, height, style, 1);
        }
      }
    }

    /** @param {Lane} lane @param {Track} track */
    copyPrefix(lane, track) {
      const { kind } = this.model.shapes;
      const sums = new Float64Array(track.starts.length + 1);
      for (let i = 0; i < track.starts.length; i++) {
        const item = track.index ? track.index[i] : i;
        const mine = kind[lane.what[item]] >= COPY;
        sums[i + 1] = sums[i] + (mine ? track.ends[i] - track.starts[i] : 0);
      }
      return sums;
    }

    /**
     * @param {CanvasRenderingContext2D} context @param {Lane} lane @param {Track} track @param {number} y
     * @param {number} height @param {any} style @param {number} alpha
     */
    drawTrack(context, lane, track, y, height, style, alpha) {
      const { t0, t1, width, ratio } = this;
      const { starts, ends, index } = track;
      const pixels = width / (t1 - t0);
      const narrow = NARROW / pixels;
      const wide = 1 / ratio;
      const perColumn = wide / pixels;
      const bottom = y + height;
      context.globalAlpha = alpha;
      let i = lower(ends, t0);
      while (i > 0 && ends[i - 1] > t0) i--;
      let done = -1;
      while (i < starts.length && starts[i] < t1) {
        const length = ends[i] - starts[i];
        if (length >= narrow) {
          const item = index ? index[i] : i;
          // Whole device pixels: where items touch, two blurred edges would look like a gap.
          const left = Math.max(Math.round((starts[i] - t0) / perColumn) * wide, -2);
          const right = Math.min(Math.round((ends[i] - t0) / perColumn) * wide, width + 2);
          const gap = right - left > 4 ? wide : 0;
          context.fillStyle = style.colour(item);
          context.fillRect(left, y, right - left - gap, height);
          if (right - left > 26 && height > 10) {
            context.fillStyle = style.ink(item);
            const from = Math.max(left, 0) + 5;
            this.write(context, this.shortName(lane, item), from, y + height / 2 + 0.5, right - from - 5);
          }
          i++;
          continue;
        }
        // All narrow items that touch a column of one device pixel, as the share of it that they cover.
        const place = Math.max(Math.floor((starts[i] - t0) / perColumn), done + 1, 0);
        const from = t0 + place * perColumn;
        const to = from + perColumn;
        const first = i > 0 && ends[i - 1] > from ? i - 1 : i;
        let next = gallop(starts, to, i);
        const last = covered(track, to, next);
        // Only the last item that begins in a column can be a wide one: it ends beyond the column.
        if (next > i && ends[next - 1] - starts[next - 1] >= narrow) next -= 1;
        const begun = covered(track, from, gallop(starts, from, first));
        const share = Math.min((last - begun) / perColumn, 1);
        if (share > 0 || ends[i] === starts[i]) {
          const tall = Math.max(share * height, 1);
          let copies = 0;
          if (track.copies) {
            copies = Math.min(Math.max(track.copies[next] - track.copies[first], 0) / perColumn, share) * height;
            if (copies > 0 && copies < 1) copies = 1;
          }
          context.fillStyle = style.columnOf ? style.columnOf(index ? index[i] : i) : style.column;
          if (copies < tall) context.fillRect(place * wide, bottom - tall, wide, tall - copies);
          if (copies > 0) {
            context.fillStyle = style.other;
            context.fillRect(place * wide, bottom - copies, wide, copies);
          }
        }
        done = place;
        // The last narrow item may reach into the next column.
        const reaches = next > i && ends[next - 1] > to && ends[next - 1] - starts[next - 1] < narrow;
        if (reaches && next - 1 > i) i = next - 1;
        else if (reaches && next - 1 === i && Math.floor((ends[i] - t0) / perColumn) > place) {
          const rest = Math.min((ends[i] - to) / perColumn, 1);
          if (!(next < starts.length && starts[next] < to + perColumn)) {
            context.fillStyle = style.columnOf ? style.columnOf(index ? index[i] : i) : style.column;
            if (track.copies && track.copies[next] > track.copies[i]) context.fillStyle = style.other;
            const tall = Math.max(rest * height, 1);
            context.fillRect((place + 1) * wide, bottom - tall, wide, tall);
          }
          i = next;
        } else i = Math.max(next, i + 1);
      }
      context.globalAlpha = 1;
    }

    /** @param {CanvasRenderingContext2D} context @param {any} bins @param {number} y @param {number} height */
    drawBins(context, bins, y, height) {
      const { width, t0, t1 } = this;
      const span = (t1 - t0) / width;
      context.fillStyle = this.theme.call;
      let before = binned(bins, t0);
      for (let place = 0; place < width; place++) {
        const after = binned(bins, t0 + (place + 1) * span);
        const tall = Math.min((after - before) / span, 1) * height;
        if (tall > 0) context.fillRect(place, y + height - Math.max(tall, 0.5), 1, Math.max(tall, 0.5));
        before = after;
      }
    }

    /** @param {CanvasRenderingContext2D} context @param {Lane} lane */
    drawIdle(context, lane) {
      const { width, t0, t1 } = this;
      const span = (t1 - t0) / width;
      const [y, height] = this.rowBox(lane, 0);
      const pixels = 1 / span;
      const narrow = NARROW * span;
      const { starts, ends, what } = lane;
      context.globalAlpha = this.matches ? DIMMED : 1;
      // Of columns that a wide piece enters or leaves, its share is drawn with it.
      /** @type {Map<number, Float64Array>} */
      const drawn = new Map();
      /** @type {number[]} */
      const wide = [];
      for (let i = upper(ends, t0); i < starts.length && starts[i] < t1; i = this.nextWide(lane, i, narrow)) {
        if (ends[i] - starts[i] < narrow) continue;
        wide.push(i);
        let shares = drawn.get(what[i]);
        if (!shares) drawn.set(what[i], (shares = new Float64Array(width + 1)));
        for (const edge of [starts[i], ends[i]]) {
          const place = Math.floor((edge - t0) * pixels);
          if (place < 0 || place >= width) continue;
          const from = t0 + place * span;
          shares[place] += Math.min(ends[i], from + span) - Math.max(starts[i], from);
        }
      }
      const level = new Float64Array(width).fill(y + height);
      const rest = this.restOf(lane, width);
      for (const [cause, { track, bins }] of lane.causes) {
        context.fillStyle = this.causeColours[cause];
        const shares = drawn.get(cause);
        let next = lower(track.starts, t0);
        let before = covered(track, t0, next);
        let beforeBins = bins ? binned(bins, t0) : 0;
        for (let place = 0; place < width; place++) {
          const time = t0 + (place + 1) * span;
          next = gallop(track.starts, time, next);
          const after = covered(track, time, next);
          let ns = after - before - (shares ? shares[place] : 0);
          before = after;
          if (bins && rest) {
            const afterBins = binned(bins, time);
            ns += (afterBins - beforeBins) * rest[place];
            beforeBins = afterBins;
          }
          const share = ns / span;
          if (share < 0.001) continue;
          const top = Math.max(level[place] - Math.min(share, 1) * height, y);
          context.fillRect(place, top, 1, level[place] - top);
          level[place] = top;
        }
      }
      for (const i of wide) {
        const left = Math.max((starts[i] - t0) * pixels, -2);
        const right = Math.min((ends[i] - t0) * pixels, width + 2);
        const colour = this.causeColours[what[i]];
        context.fillStyle = colour;
        context.fillRect(left, y, right - left, height);
        if (right - left > 40 && height > 10) {
          context.fillStyle = inkOn(colour);
          const from = Math.max(left, 0) + 5;
          this.write(context, this.shortName(lane, i), from, y + height / 2 + 0.5, right - from - 5);
        }
      }
      context.globalAlpha = 1;
    }

    /**
     * By what the coverage of bins is to be multiplied in each column, `null` where every piece is an item.
     *
     * A bin says how much of its time each cause of short pieces has, not when. When it was idle is known exactly, since
     * all operations are: what no operation and no longer piece covers belongs to the short ones.
     * @param {Lane} lane @param {number} width
     */
    restOf(lane, width) {
      const binsOfCauses = [...lane.causes.values()].map(({ bins }) => bins).filter(Boolean);
      if (!binsOfCauses.length) return null;
      const { t0, t1, model } = this;
      const busy = lane.busy ?? (lane.busy = unionOf(lane.group.lanes.flatMap((/** @type {any} */ each) =>
        each.type === 'stream' ? each.tracks : [],
      )));
      const factors = new Float64Array(width);
      const span = (t1 - t0) / width;
      const totals = (/** @type {number} */ time) => {
        const at = Math.min(Math.max(time, model.start), model.end);
        let short = 0;
        for (const bins of binsOfCauses) short += binned(bins, at);
        return [at - covered(busy, at) - covered(lane.tracks[0], at), short];
      };
      let before = totals(t0);
      for (let place = 0; place < width; place++) {
        const after = totals(t0 + (place + 1) * span);
        const short = after[1] - before[1];
        factors[place] = short > 0 ? Math.max(after[0] - before[0], 0) / short : 0;
        before = after;
      }
      return factors;
    }

    /** The next piece after i that is at least `narrow` long. @param {Lane} lane @param {number} i
     *  @param {number} narrow */
    nextWide(lane, i, narrow) {
      const { starts, ends } = lane;
      i += 1;
      const most = lane.longest ?? (lane.longest = longestOf(lane));
      while (i < starts.length && ends[i] - starts[i] < narrow) {
        i += i % BLOCK === 0 && most[i / BLOCK] < narrow ? BLOCK : 1;
      }
      return i;
    }

    /** @param {CanvasRenderingContext2D} context @param {Lane} lane */
    drawMetric(context, lane) {
      const { width, t0, t1, theme } = this;
      const { starts, ends, mean, low, high, integral, blockLow, blockHigh } = lane;
      const [y, height] = this.rowBox(lane, 0);
      const span = (t1 - t0) / width;
      const colour = theme.accent;
      const levelOf = (/** @type {number} */ value) => y + height - Math.min(value / lane.top, 1) * height;
      const at = (/** @type {number} */ time, /** @type {number} */ i) =>
        i >= mean.length ? integral[mean.length] : integral[i] + mean[i] * Math.max(time - starts[i], 0);
      context.globalAlpha = this.matches ? DIMMED : 1;
      let i = upper(ends, t0);
      for (let place = 0; place < width && i < mean.length; place++) {
        const from = Math.max(t0 + place * span, starts[0]);
        const to = Math.min(t0 + (place + 1) * span, ends[mean.length - 1]);
        if (to <= from) continue;
        while (i < mean.length && ends[i] <= from) i = Math.max(gallop(ends, from, i), i + 1);
        let last = Math.max(gallop(starts, to, i) - 1, i);
        if (last >= mean.length) last = mean.length - 1;
        const value = (at(to, last) - at(from, i)) / (to - from);
        const top = levelOf(value);
        context.globalAlpha = (this.matches ? DIMMED : 1) * 0.28;
        context.fillStyle = colour;
        context.fillRect(place, top, 1, y + height - top);
        let least = Infinity;
        let most = -Infinity;
        for (let k = i; k <= last; ) {
          if (k % BLOCK === 0 && k + BLOCK <= last + 1) {
            least = Math.min(least, blockLow[k / BLOCK]);
            most = Math.max(most, blockHigh[k / BLOCK]);
            k += BLOCK;
          } else {
            least = Math.min(least, low[k]);
            most = Math.max(most, high[k]);
            k += 1;
          }
        }
        const peak = levelOf(most);
        context.globalAlpha = (this.matches ? DIMMED : 1) * 0.16;
        if (peak < top) context.fillRect(place, peak, 1, top - peak);
        context.globalAlpha = (this.matches ? DIMMED : 1) * 0.9;
        context.fillRect(place, top - 0.5, 1, 1.2);
        i = last;
      }
      context.globalAlpha = 1;
      if (lane.collapsed) return;
      const text = lane.isClock ? frequency(lane.top) : '100 %';
      context.font = FONT.replace('12px', '10px');
      const wide = context.measureText(text).width;
      context.fillStyle = theme.background;
      context.globalAlpha = 0.75;
      context.fillRect(width - wide - 6, y, wide + 6, 12);
      context.globalAlpha = 1;
      context.fillStyle = theme.muted;
      context.fillText(text, width - wide - 3, y + 6);
      context.font = FONT;
      context.fillStyle = theme.grid;
      context.fillRect(0, y + height, width, 1);
    }

    /** Write a text that is cut with an ellipsis where it does not fit. @param {CanvasRenderingContext2D} context
     *  @param {string} text @param {number} x @param {number} y @param {number} room */
    write(context, text, x, y, room) {
      if (room < 18 || !text) return;
      let wide = this.textWidth(context, text);
      while (wide > room) {
        const letters = Math.min(Math.floor((room / wide) * text.length), text.length - 1) - 1;
        if (letters < 3) return;
        text = text.slice(0, letters).trimEnd() + '…';
        wide = this.textWidth(context, text);
      }
      context.textAlign = 'left';
      context.fillText(text, x, y);
    }

    /** @param {CanvasRenderingContext2D} context @param {string} text */
    textWidth(context, text) {
      let wide = this.textWidths.get(text);
      if (wide === undefined) {
        if (this.textWidths.size > 20000) this.textWidths.clear();
        wide = context.measureText(text).width;
        this.textWidths.set(text, wide);
      }
      return wide;
    }

    // ---------------------------------------------------------------------------------------------------- items

    /** @param {Lane} lane @param {number} item */
    shortName(lane, item) {
      const { model } = this;
      if (lane.type === 'metric') return lane.title;
      const what = lane.what[item];
      if (lane.type === 'idle') return this.say(`cause_${model.causes[what]}`);
      if (lane.type === 'stream') return this.shapeName(what, true);
      return model.short[what] || model.names[what];
    }

    /** @param {number} shape @param {boolean} isShort */
    shapeName(shape, isShort) {
      const { shapes, short, names } = this.model;
      const name = shapes.name[shape];
      if (name >= 0) return (isShort && short[name]) || names[name];
      const kind = shapes.kind[shape];
      if (kind === 1) return this.say('graph_launch');
      if (kind === 3) return this.say('kind_memset');
      return this.labels[`copy_${shapes.copyKind[shape]}`] ?? this.say('kind_memcpy');
    }

    /** @param {Lane} lane @param {number} item */
    kindOf(lane, item) {
      /** @type {Record<string, string>} */
      const simple = { nvtx: 'nvtx', api: 'call', idle: 'idle', metric: 'sample' };
      return simple[lane.type] ?? KINDS[this.model.shapes.kind[lane.what[item]]];
    }

    /** @param {Lane} lane @param {number} value */
    valueText(lane, value) {
      return lane.isClock ? frequency(value) : significant(value) + ' %';
    }

    /** What is known of an item. @param {Lane} lane @param {number} item */
    facts(lane, item) {
      const { model } = this;
      const [start, end] = [lane.starts[item], lane.ends[item]];
      const kind = this.kindOf(lane, item);
      /** @type {[string, string][]} */
      const rows = [];
      const add = (/** @type {string} */ key, /** @type {string} */ text) => rows.push([this.say(key), text]);
      add('fact_start', `${duration(start - model.zero)} (${exactly(start - model.zero)})`);
      add('fact_duration', `${duration(end - start)} (${exactly(end - start)})`);
      add('fact_lane', `${lane.group.title}, ${lane.title}`);
      add('fact_kind', this.say(`kind_${kind}`));
      let name = '';
      if (lane.type === 'metric') {
        name = lane.title;
        const [mean, low, high] = [lane.mean[item], lane.low[item], lane.high[item]].map((v) => this.valueText(lane, v));
        add('fact_value', lane.together > 1 ? this.say('value_range', { mean, low, high }) : mean);
      } else if (lane.type === 'idle') {
        const cause = model.causes[lane.what[item]];
        name = this.say(`cause_${cause}`);
        add('fact_cause', `${name}: ${this.say(`meaning_${cause}`)}`);
      } else if (lane.type === 'stream') {
        name = this.shapeName(lane.what[item], false);
        this.addShape(lane.what[item], add);
        this.addLaunch(lane, item, add);
      } else name = model.names[lane.what[item]];
      return {
        name,
        label: this.shortName(lane, item),
        startNs: start,
        endNs: end,
        durationNs: end - start,
        kind,
        lane: lane.key,
        cause: lane.type === 'idle' ? model.causes[lane.what[item]] : null,
        rows,
      };
    }

    /** @param {number} shape @param {(key: string, text: string) => void} add */
    addShape(shape, add) {
      const { launch, bytes } = this.model.shapes;
      const at = launch.map((/** @type {Float64Array} */ column) => column[shape]);
      if (at[0] >= 0) {
        add('fact_grid', at.slice(0, 3).map((/** @type {number} */ n) => fixed(n, 0)).join(' × '));
        add('fact_block', at.slice(3, 6).map((/** @type {number} */ n) => fixed(n, 0)).join(' × '));
        if (at[6] >= 0) add('fact_registers', fixed(at[6], 0));
        if (at[7] >= 0 && at[8] >= 0) {
          const values = { static: byteSize(at[7]), dynamic: byteSize(at[8]) };
          add('fact_shared_memory', this.say('shared_static_dynamic', values));
        }
      }
      if (bytes[shape] >= 0) add('fact_bytes', byteSize(bytes[shape]));
    }

    /** @param {Lane} lane @param {number} item @param {(key: string, text: string) => void} add */
    addLaunch(lane, item, add) {
      if (!lane.launches) return;
      const { before, took, thread } = lane.launches;
      if (thread[item] < 0) {
        add('fact_launch', this.say('launch_unknown'));
        return;
      }
      const waited = before[item] - took[item];
      add(
        'fact_launch',
        this.say(waited >= 0 ? 'launched' : 'launched_empty', {
          start: this.moment(lane.starts[item] - before[item]),
          tid: this.model.launchingThreads[thread[item]],
          took: duration(took[item]),
          waited: duration(Math.abs(waited)),
        }),
      );
    }

    describe() {
      const panel = this.details;
      panel.replaceChildren();
      for (const name of Object.keys(panel.dataset)) delete panel.dataset[name];
      if (!this.chosen) {
        const line = element('p', 'nt-muted');
        line.textContent = this.say('nothing_chosen');
        panel.append(line);
        return;
      }
      const lane = this.lanes[this.chosen.lane];
      const facts = this.facts(lane, this.chosen.item);
      Object.assign(panel.dataset, {
        name: facts.name,
        startNs: String(facts.startNs),
        durationNs: String(facts.durationNs),
        kind: facts.kind,
        lane: facts.lane,
        item: String(this.chosen.item),
      });
      if (facts.cause) panel.dataset.cause = facts.cause;
      const title = element('p', 'nt-name', { dir: 'ltr' });
      title.textContent = facts.name;
      const list = element('dl', 'nt-facts');
      for (const [term, text] of facts.rows) {
        const pair = element('div', '');
        const [dt, dd] = [element('dt', ''), element('dd', '')];
        dt.textContent = term;
        dd.textContent = text;
        pair.append(dt, dd);
        list.append(pair);
      }
      panel.append(title, list);
    }

    /** @param {Chosen|null} chosen @param {boolean} reveal  whether the view moves to it */
    choose(chosen, reveal = false) {
      if (!this.model) return;
      if (chosen && !(chosen.item >= 0 && chosen.item < (this.lanes[chosen.lane]?.starts.length ?? 0))) return;
      this.chosen = chosen;
      if (chosen) {
        const lane = this.lanes[chosen.lane];
        this.lane = chosen.lane;
        if (reveal) {
          this.unhide(lane);
          const [start, end] = [lane.starts[chosen.item], lane.ends[chosen.item]];
          const span = this.t1 - this.t0;
          if (end < this.t0 + span * 0.02 || start > this.t1 - span * 0.02) {
            const middle = Math.min((start + end) / 2, start + span * 0.4);
            this.show(middle - span / 2, middle + span / 2);
          }
        }
      }
      this.markLane();
      this.describe();
      this.invalidate();
    }

    /** @param {Lane} lane */
    unhide(lane) {
      if (!lane.hidden) return;
      lane.group.closed = false;
      lane.group.head.setAttribute('aria-expanded', 'true');
      while (this.more && (this.layOut(), lane.hidden) && !this.more.hidden) this.rowsShown += ROWS_SHOWN;
    }

    markLane() {
      for (const lane of this.lanes) lane.element.classList.toggle('nt-current', lane.index === this.lane);
    }

    /** @param {Lane} lane @param {number} item */
    zoomToItem(lane, item) {
      const length = lane.ends[item] - lane.starts[item];
      this.show(lane.starts[item], lane.ends[item], length > 0 ? 0.35 : 0);
    }

    /** The item under a point of a lane, or -1. @param {Lane} lane @param {number} x @param {number} y */
    hit(lane, x, y) {
      const time = this.timeAt(x);
      const slack = ((this.t1 - this.t0) / this.width) * 2;
      let row = 0;
      if (lane.tracks.length > 1) {
        row = lane.collapsed
          ? Math.floor(((y - 1) / (COLLAPSED_HEIGHT - 2)) * lane.rows)
          : Math.floor((y - 1) / ROW_HEIGHT);
        row = Math.min(Math.max(row, 0), lane.tracks.length - 1);
      }
      const { starts, ends, index } = lane.tracks[row] ?? { starts: lane.starts, ends: lane.ends, index: null };
      const after = upper(starts, time);
      let best = -1;
      let least = Infinity;
      for (const i of [after - 1, after]) {
        if (i < 0 || i >= starts.length) continue;
        const away = Math.max(starts[i] - time, time - ends[i], 0);
        if (away <= slack && away < least) [best, least] = [i, away];
      }
      return best < 0 || !index ? best : index[best];
    }

    // --------------------------------------------------------------------------------------------------- search

    /** Mark the items whose names contain a text, whatever its case. @param {string} text @returns {number} */
    search(text) {
      this.query = text.trim().toLowerCase();
      const { query, model } = this;
      this.matches = 0;
      const names = model.names.map(
        (/** @type {string} */ name, /** @type {number} */ i) =>
          query && (name.toLowerCase().includes(query) || String(model.short[i] || '').toLowerCase().includes(query)),
      );
      const shapes = Array.from(model.shapes.kind, (_, shape) => {
        const name = model.shapes.name[shape];
        return query && (name >= 0 ? names[name] : this.shapeName(shape, false).toLowerCase().includes(query));
      });
      for (const lane of this.lanes) {
        if (lane.type === 'idle' || lane.type === 'metric') continue;
        const matching = lane.type === 'stream' ? shapes : names;
        for (const track of lane.tracks) {
          track.found = query ? this.foundIn(lane, track, matching) : null;
          this.matches += track.found?.starts.length ?? 0;
        }
      }
      if (this.input.value !== text) this.input.value = text;
      this.sayFound();
      this.invalidate();
      return this.matches;
    }

    /** @param {Lane} lane @param {Track} track @param {boolean[]} matching @returns {Track} */
    foundIn(lane, track, matching) {
      const { index, starts, ends } = track;
      const places = new Uint32Array(starts.length);
      let count = 0;
      for (let i = 0; i < starts.length; i++) if (matching[lane.what[index ? index[i] : i]]) places[count++] = i;
      const part = partOf(starts, ends, places.slice(0, count));
      if (index) part.index = /** @type {Uint32Array} */ (part.index).map((i) => index[i]);
      if (lane.mixed) part.copies = this.copyPrefix(lane, part);
      return part;
    }

    /** Choose the next match in time, or the one before; after the last comes the first. @param {1|-1} way */
    nextMatch(way) {
      if (!this.matches) return;
      /** @type {{track: Track, lane: number}[]} */
      const all = [];
      for (const lane of this.lanes) {
        for (const track of lane.tracks) if (track.found?.starts.length) all.push({ track: track.found, lane: lane.index });
      }
      let here = way > 0 ? -Infinity : Infinity;
      let rank = way > 0 ? -1 : all.length;
      if (this.chosen) {
        const { lane, item } = this.chosen;
        here = this.lanes[lane].starts[item];
        const row = this.lanes[lane].tracks[this.rowOf(this.lanes[lane], item)]?.found;
        rank = all.findIndex((each) => each.track === row);
        if (rank < 0) rank = all.findIndex((each) => each.lane >= lane) - 0.5;
      } else if (way > 0) here = this.t0;
      const best = this.nearest(all, here, rank, way) ?? this.nearest(all, -way * Infinity, -way * Infinity, way);
      if (!best) return;
      this.choose({ lane: best.lane, item: best.item }, true);
      this.sayFound(best.place);
    }

    /** @param {{track: Track, lane: number}[]} all @param {number} here @param {number} rank @param {1|-1} way */
    nearest(all, here, rank, way) {
      let best = null;
      let place = 0;
      for (let order = 0; order < all.length; order++) {
        const { starts, index } = all[order].track;
        const count = (way > 0 ? order > rank : order >= rank) ? lower(starts, here) : upper(starts, here);
        const i = way > 0 ? count : count - 1;
        if (i < 0 || i >= starts.length) continue;
        if (!best || (way > 0 ? starts[i] < best.start : starts[i] >= best.start)) {
          best = { lane: all[order].lane, item: /** @type {Uint32Array} */ (index)[i], start: starts[i], order, place: 0 };
        }
      }
      if (!best) return null;
      for (let order = 0; order < all.length; order++) {
        const { starts } = all[order].track;
        place += order <= best.order ? upper(starts, best.start) : lower(starts, best.start);
      }
      best.place = place;
      return best;
    }

    sayFound(place = 0) {
      const count = fixed(this.matches, 0);
      let text = '';
      if (this.query) {
        text = !this.matches
          ? this.say('search_none')
          : place
            ? this.say('search_place', { place: fixed(place, 0), count })
            : this.say('search_count', { count });
      }
      this.finding.textContent = text;
      this.finding.dataset.count = String(this.matches);
    }

    // --------------------------------------------------------------------------------------------------- events

    listen() {
      const { chart, container } = this;
      new ResizeObserver(() => this.resize()).observe(chart);
      document.addEventListener('nitro-theme', () => this.readTheme());
      matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.readTheme());
      addEventListener('scroll', () => this.scrolled(), { passive: true, capture: true });
      addEventListener('beforeprint', () => {
        container.classList.add('nt-print');
        this.readTheme();
        this.resize();
        this.paint(true);
      });
      addEventListener('afterprint', () => {
        container.classList.remove('nt-print');
        this.readTheme();
        this.resize();
      });
      chart.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.key(event));
      chart.addEventListener('wheel', (/** @type {WheelEvent} */ event) => this.wheel(event), { passive: false });
      this.input.addEventListener('input', () => this.search(this.input.value));
      this.input.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
        if (event.key === 'Enter') this.nextMatch(event.shiftKey ? -1 : 1);
        else if (event.key === 'Escape') this.search('');
        else return;
        event.preventDefault();
      });
      this.listenToPointers();
    }

    scrolled() {
      this.lastScroll = performance.now();
      this.schedule();
    }

    /** @param {WheelEvent} event */
    wheel(event) {
      const canvas = /** @type {HTMLElement} */ (event.target);
      if (canvas.tagName !== 'CANVAS') return;
      // A page that is being scrolled goes on scrolling when the chart comes under the pointer.
      if (!event.ctrlKey && performance.now() - this.lastScroll < SCROLL_GRACE_MS) return;
      const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
      const [dx, dy] = [event.deltaX * unit, event.deltaY * unit];
      if (event.shiftKey || Math.abs(dx) > Math.abs(dy)) {
        this.pan(((dx || dy) / this.width) * (this.t1 - this.t0));
      } else {
        const [low, high] = this.limits;
        if (dy > 0 && this.t1 - this.t0 >= high - low) return;
        const rate = event.ctrlKey ? 0.01 : 0.0022;
        const factor = Math.min(Math.max(Math.exp(dy * rate), 0.2), 5);
        this.zoom(factor, this.timeAt(event.clientX - this.ruler.getBoundingClientRect().left));
      }
      event.preventDefault();
    }

    /** @param {KeyboardEvent} event */
    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const onButton = /** @type {HTMLElement} */ (event.target).tagName === 'BUTTON';
      const span = this.t1 - this.t0;
      /** @type {Record<string, () => void>} */
      const acts = {
        ArrowLeft: () => this.pan(-span * 0.12),
        ArrowRight: () => this.pan(span * 0.12),
        ArrowUp: () => this.nextLane(-1),
        ArrowDown: () => this.nextLane(1),
        '+': () => this.zoom(0.6),
        '=': () => this.zoom(0.6),
        '-': () => this.zoom(1 / 0.6),
        Home: () => this.showWhole(),
        n: () => this.nextItem(1),
        ']': () => this.nextItem(1),
        p: () => this.nextItem(-1),
        '[': () => this.nextItem(-1),
        Escape: () => this.choose(null),
        Enter: () => {
          if (this.chosen) this.zoomToItem(this.lanes[this.chosen.lane], this.chosen.item);
        },
      };
      const act = acts[event.key];
      if (!act || (onButton && event.key === 'Enter')) return;
      act();
      event.preventDefault();
    }

    /** @param {1|-1} way */
    nextLane(way) {
      let next = this.lane + way;
      while (next >= 0 && next < this.lanes.length && this.lanes[next].hidden) next += way;
      if (next < 0 || next >= this.lanes.length) return;
      this.lane = next;
      this.markLane();
      this.lanes[next].element.scrollIntoView({ block: 'nearest' });
      this.lanes[next].element.querySelector('.nt-head')?.setAttribute('aria-current', 'true');
      const lane = this.lanes[next];
      const first = this.firstVisible(lane);
      if (first >= 0) this.choose({ lane: next, item: first });
      else this.choose(null);
    }

    /** The first item that begins in sight, else the last one before, or -1. @param {Lane} lane */
    firstVisible(lane) {
      if (!lane.starts.length) return -1;
      const first = lower(lane.starts, this.t0);
      return first < lane.starts.length && lane.starts[first] < this.t1 ? first : Math.max(first - 1, 0);
    }

    /** @param {1|-1} way */
    nextItem(way) {
      const lane = this.lanes[this.lane];
      if (!lane) return;
      const here = this.chosen?.lane === this.lane ? this.chosen.item + way : this.firstVisible(lane);
      if (here >= 0 && here < lane.starts.length) this.choose({ lane: this.lane, item: here }, true);
    }

    listenToPointers() {
      const { chart } = this;
      /** @type {Map<number, {x: number, y: number}>} */
      const pointers = new Map();
      /** @type {any} */
      let drag = null;
      const left = () => this.ruler.getBoundingClientRect().left;
      const laneOf = (/** @type {EventTarget|null} */ target) =>
        target instanceof HTMLCanvasElement ? this.lanes.find((lane) => lane.canvas === target) : undefined;

      chart.addEventListener('pointerdown', (/** @type {PointerEvent} */ event) => {
        if (!(event.target instanceof HTMLCanvasElement) || event.button) return;
        pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
        event.target.setPointerCapture(event.pointerId);
        drag = {
          x: event.clientX,
          t0: this.t0,
          t1: this.t1,
          onRuler: event.target === this.ruler,
          moved: false,
          target: event.target,
        };
        if (pointers.size === 2) {
          const [a, b] = [...pointers.values()];
          drag.apart = Math.max(Math.abs(a.x - b.x), 20);
          drag.middle = this.timeAt((a.x + b.x) / 2 - left());
        }
        this.tip.hidden = true;
      });
      chart.addEventListener('pointermove', (/** @type {PointerEvent} */ event) => {
        const x = event.clientX - left();
        this.cursor.style.display = x >= 0 && x <= this.width ? 'block' : 'none';
        this.cursor.style.transform = `translateX(${Math.round(x + this.corner.offsetWidth)}px)`;
        if (!pointers.has(event.pointerId) || !drag) {
          this.hover(event, laneOf(event.target));
          return;
        }
        pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
        if (pointers.size === 2 && drag.apart) {
          const [a, b] = [...pointers.values()];
          const factor = drag.apart / Math.max(Math.abs(a.x - b.x), 20);
          const span = (drag.t1 - drag.t0) * factor;
          const place = ((a.x + b.x) / 2 - left()) / this.width;
          this.show(drag.middle - span * place, drag.middle + span * (1 - place));
          drag.moved = true;
          return;
        }
        if (Math.abs(event.clientX - drag.x) > 3) drag.moved = true;
        if (!drag.moved) return;
        if (drag.onRuler) this.showBrush(drag.x - left(), x);
        else {
          const ns = ((drag.x - event.clientX) / this.width) * (drag.t1 - drag.t0);
          this.show(drag.t0 + ns, drag.t1 + ns);
          chart.classList.add('nt-dragging');
        }
      });
      const release = (/** @type {PointerEvent} */ event) => {
        if (!pointers.delete(event.pointerId) || !drag) return;
        chart.classList.remove('nt-dragging');
        this.brush.style.display = 'none';
        const x = event.clientX - left();
        if (event.type === 'pointerup') {
          if (drag.onRuler && drag.moved && !drag.apart) {
            const times = [this.timeAt(drag.x - left()), this.timeAt(x)].sort((a, b) => a - b);
            this.show(times[0], times[1]);
          } else if (!drag.moved) {
            const lane = laneOf(drag.target);
            if (lane) {
              const item = this.hit(lane, x, event.clientY - lane.canvas.getBoundingClientRect().top);
              this.lane = lane.index;
              this.choose(item < 0 ? null : { lane: lane.index, item });
            }
          }
        }
        drag = null;
        pointers.clear();
      };
      chart.addEventListener('pointerup', release);
      chart.addEventListener('pointercancel', release);
      chart.addEventListener('pointerleave', () => {
        this.cursor.style.display = 'none';
        this.hover(null, undefined);
      });
      chart.addEventListener('dblclick', (/** @type {MouseEvent} */ event) => {
        const lane = laneOf(event.target);
        if (!lane) return;
        const item = this.hit(lane, event.clientX - left(), event.clientY - lane.canvas.getBoundingClientRect().top);
        if (item < 0) this.zoom(0.4, this.timeAt(event.clientX - left()));
        else {
          this.choose({ lane: lane.index, item });
          this.zoomToItem(lane, item);
        }
        event.preventDefault();
      });
    }

    /** @param {number} one @param {number} other  CSS pixels */
    showBrush(one, other) {
      const [from, to] = [Math.max(Math.min(one, other), 0), Math.min(Math.max(one, other), this.width)];
      this.brush.style.display = 'block';
      this.brush.style.left = `${from + this.corner.offsetWidth}px`;
      this.brush.style.width = `${Math.max(to - from, 0)}px`;
      this.brush.textContent = duration(Math.round(this.timeAt(to) - this.timeAt(from)));
    }

    /** @param {PointerEvent|null} event @param {Lane|undefined} lane */
    hover(event, lane) {
      let item = -1;
      if (event && lane) {
        const box = lane.canvas.getBoundingClientRect();
        item = this.hit(lane, event.clientX - box.left, event.clientY - box.top);
      }
      const before = this.hovered;
      this.hovered = item < 0 || !lane ? null : { lane: lane.index, item };
      if (before?.lane !== this.hovered?.lane || before?.item !== this.hovered?.item) {
        for (const each of [before, this.hovered]) if (each) this.lanes[each.lane].drawn = 0;
        this.schedule();
        if (this.hovered && lane) this.fillTip(lane, item);
      }
      this.tip.hidden = !this.hovered;
      if (!event || !this.hovered) return;
      const outer = this.container.getBoundingClientRect();
      const [x, y] = [event.clientX - outer.left + 14, event.clientY - outer.top + 16];
      const wide = this.tip.offsetWidth;
      this.tip.style.left = `${Math.max(Math.min(x, outer.width - wide - 4), 0)}px`;
      this.tip.style.top = `${y}px`;
    }

    /** @param {Lane} lane @param {number} item */
    fillTip(lane, item) {
      const facts = this.facts(lane, item);
      this.tip.replaceChildren();
      const name = element('div', 'nt-tip-name', { dir: 'ltr' });
      name.textContent = facts.label.length > 160 ? facts.label.slice(0, 160) + '…' : facts.label;
      const line = element('div', '');
      line.textContent = `${duration(facts.durationNs)} · ${this.moment(facts.startNs)} · ${this.say(`kind_${facts.kind}`)}`;
      this.tip.append(name, line);
      const extra = facts.rows.slice(4).map(([term, text]) => `${term}: ${text}`);
      for (const text of extra.slice(0, 6)) {
        const more = element('div', 'nt-muted');
        more.textContent = text;
        this.tip.append(more);
      }
    }
  }

  return {
    /**
     * Show a timeline in a container.
     * @param {HTMLElement} container @param {string|Element} packedBase64  the text, or an element that holds it
     * @param {Record<string, string>} labels @param {Options} [options]
     */
    mount: (container, packedBase64, labels, options = {}) =>
      new Timeline(container, packedBase64, labels, options).handle(),
    duration,
  };
})();
