// Record with the camera, and upload clips: as raw bodies, so that the server can stream them.
"use strict";

const MIN_S = 3, MAX_S = 5;
const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };
const seconds = (s) => new Promise((resolve) => setTimeout(resolve, 1000 * s));

const localTime = (date) => { // with the offset, as the clock on the wall shows it
  const offset = -date.getTimezoneOffset(), two = (n) => String(Math.floor(Math.abs(n))).padStart(2, "0");
  const wall = new Date(date.getTime() + 60000 * offset).toISOString().slice(0, 19);
  return `${wall}${offset < 0 ? "-" : "+"}${two(offset / 60)}:${two(offset % 60)}`;
};

const send = (url, body) => new Promise((resolve, reject) => {
  const request = new XMLHttpRequest(); // fetch has no progress of uploads
  request.open("POST", url);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.upload.onprogress = ({ loaded, total }) => { $("upload").hidden = false; $("upload-bar").value = loaded / total; };
  request.onload = () => request.status < 300 ? resolve(JSON.parse(request.responseText)) : reject(new Error(request.responseText));
  request.onerror = () => reject(new Error("the journal does not answer: is it still running?"));
  request.send(body);
});

const upload = async (url, body) => {
  try {
    const target = new URL((await send(url, body)).url, location);
    if (target.pathname === location.pathname) location.reload(); // a new #part alone loads nothing
    else location.assign(target);
  } catch (error) {
    $("upload").hidden = true;
    say(`Not kept: ${error.message}`);
    throw error;
  }
};

const page = $("add");
const keepClip = (body, name, recordedAt) => {
  const query = new URLSearchParams({ name, note: $("note").value, tags: $("tags").value });
  const day = page.dataset.day;
  if (day) query.set("recorded_at", `${day}T12:00:00`);
  else if (recordedAt) query.set("recorded_at", localTime(recordedAt));
  say("Keeping your clip …");
  return upload(`${page.dataset.upload}?${query}`, body);
};

if (page) {
  let stream, recorder, recording;
  const show = (...ids) => {
    for (const id of ["start", "record", "stop", "again", "keep", "live", "preview", "stage-text", "ring", "countdown"])
      $(id).hidden = !ids.includes(id);
  };
  const preview = (video) => { if (video.src) URL.revokeObjectURL(video.src); };

  const openCamera = async () => {
    if (!navigator.mediaDevices) {
      say("This browser gives the camera only to pages on this computer or with https. Choose a file instead.");
      return;
    }
    const video = { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" };
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video, audio: true })
        .catch(() => navigator.mediaDevices.getUserMedia({ video })); // no microphone
    } catch (error) {
      const why = { NotAllowedError: "The browser does not let this page use the camera. Allow it at the address bar", NotFoundError: "No camera was found",
        NotReadableError: "Another program uses the camera" }[error.name] ?? "The camera cannot be used";
      say(`${why}, or choose a file instead.`);
      return;
    }
    $("live").srcObject = stream;
    await $("live").play();
    show("live", "record");
    say("Look into the camera. A recording takes three to five seconds.");
    $("record").focus();
  };

  const record = async () => {
    show("live", "countdown");
    for (const left of [3, 2, 1]) {
      $("countdown").textContent = left;
      say(String(left));
      await seconds(1);
    }
    const mimeType = ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4"].find((type) => MediaRecorder.isTypeSupported(type));
    const parts = [], started = new Date();
    recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 4_000_000 });
    recorder.ondataavailable = ({ data }) => parts.push(data);
    const ended = new Promise((resolve) => { recorder.onstop = resolve; });
    recorder.start();
    show("live", "stop", "ring");
    $("stop").disabled = true;
    say("Recording");
    const begun = performance.now();
    while (recorder.state === "recording") {
      const passed = (performance.now() - begun) / 1000;
      $("ring-done").setAttribute("stroke-dasharray", `${Math.min(100, 100 * passed / MAX_S)} 100`);
      if (passed >= MIN_S && $("stop").disabled) { $("stop").disabled = false; $("stop").focus(); }
      if (passed >= MAX_S) recorder.stop();
      else await seconds(0.05);
    }
    await ended;
    const type = recorder.mimeType.split(";")[0];
    recording = { blob: new Blob(parts, { type }), started, name: `recording.${type.split("/")[1]}` };
    preview($("preview"));
    $("preview").src = URL.createObjectURL(recording.blob);
    show("preview", "again", "keep");
    $("preview").muted = false;
    $("preview").play().catch(() => {});
    say("Recorded. Keep it, or record again.");
    $("keep").focus();
  };

  $("start").addEventListener("click", openCamera);
  $("record").addEventListener("click", record);
  $("again").addEventListener("click", record);
  $("stop").addEventListener("click", () => recorder.stop());
  $("keep").addEventListener("click", async () => {
    $("keep").disabled = $("again").disabled = true;
    try {
      await keepClip(recording.blob, recording.name, recording.started);
      stream.getTracks().forEach((track) => track.stop());
    } catch { $("keep").disabled = $("again").disabled = false; }
  });

  const keepFile = (file) => file && keepClip(file, file.name).catch(() => {});
  $("file").addEventListener("change", ({ target }) => keepFile(target.files[0]));
  const drop = $("drop");
  for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const { files } = event.dataTransfer;
    if (files.length > 1) keepOld(files); else keepFile(files[0]);
  });

  const keepOld = async (files) => {
    try {
      const { url } = await send(page.dataset.old, null);
      const chosen = [...files];
      for (const [place, file] of chosen.entries()) {
        say(`Sending ${place + 1} of ${chosen.length}: ${file.name}`);
        const query = new URLSearchParams({ name: file.name, modified: file.lastModified });
        await send(`${url}/files?${query}`, file);
      }
      await upload(`${url}/scan`, null);
    } catch (error) { say(`Not kept: ${error.message}`); }
  };
  for (const id of ["folder", "files"]) $(id).addEventListener("change", ({ target }) => target.files.length && keepOld(target.files));
}

const archive = $("import");
if (archive) $("archive").addEventListener("change", ({ target }) => {
  if (target.files[0]) upload(archive.dataset.upload, target.files[0]).catch(() => {});
});
